// The description of the API, by Swagger UI. Who is signed in to the page can try things out without a key.

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";

SwaggerUI({
  url: "/openapi.json",
  domNode: document.getElementById("docs"),
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null, // would ask another host
  requestInterceptor: (request: { headers: Record<string, string> }) => {
    request.headers["X-Shortlist"] = "page";
    return request;
  },
});
