"""Distortion-relation guided transfer learning, as a library that works without the service."""
