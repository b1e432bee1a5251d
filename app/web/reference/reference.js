// Every call of the service, to read and to try, as its own OpenAPI document describes them.

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null, // Or it would send the document to another host.
});
