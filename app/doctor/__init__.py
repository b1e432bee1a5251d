"""The pair doctor: measures a pair of images, says whether it can teach a network, and mends what can be mended.

Works on arrays and knows neither files nor HTTP. An image is float32, (h, w, 3), in [0, 255]; the clean and the
distorted image have one size (a smaller distorted one is enlarged before). Needs SciPy and scikit-image, which the
service imports in child processes only.
"""
