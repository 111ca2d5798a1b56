//! The API's document: made from the types and routes by a test, committed, served as it lies.

use axum::response::{IntoResponse as _, Response};
use hyper::header::CONTENT_TYPE;

const DOCUMENT: &str = include_str!("../../docs/openapi.json");

/// `GET /openapi.json`: the same for everybody, and the same as in the repository.
pub(crate) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use utoipa::OpenApi as _;

    use super::DOCUMENT;
    use crate::admin::document::AdminApi;
    use crate::service::document::WorkerApi;

    /// Set it to write what is made in place of comparing with it.
    const WRITE: &str = "TIDEGATE_WRITE_DOCS";

    /// The document, with what holds for all operations.
    fn made() -> Value {
        let mut api = WorkerApi::openapi();
        api.merge(AdminApi::openapi());
        let mut document = serde_json::to_value(&api).unwrap();
        document["info"] = json!({
            "title": "Tidegate gateway",
            "version": "1",
            "description": "Routes tagged `worker` are on the workers' listener (TLS 1.3), those tagged \
                `admin` on the admin socket, which its owner and root may open. Errors are RFC 9457 \
                problem documents. Times are seconds since the Unix epoch by the gateway's clock.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        });
        document["components"]["securitySchemes"]["worker"] = json!({
            "type": "mutualTLS",
            "description": "The client certificate that `attach` gave, of the lease in the path.",
        });
        let problem =
            serde_json::to_value(<tidegate_wire::Problem as utoipa::PartialSchema>::schema());
        document["components"]["schemas"]["Problem"] = problem.unwrap();
        let kind = <tidegate_wire::ProblemKind as utoipa::PartialSchema>::schema();
        document["components"]["schemas"]["ProblemKind"] = serde_json::to_value(kind).unwrap();
        for (path, item) in document["paths"].as_object_mut().unwrap() {
            for operation in item.as_object_mut().unwrap().values_mut() {
                let problem = json!({ "$ref": "#/components/schemas/Problem" });
                operation["responses"]["default"] = json!({
                    "description": "Refused, or failed; the kind says who is at fault",
                    "content": { "application/problem+json": { "schema": problem } },
                });
                if path.starts_with("/v1/leases/") {
                    operation["security"] = json!([{ "worker": [] }]);
                }
            }
        }
        document
    }

    #[test]
    fn the_committed_document_is_the_one_that_the_code_makes() {
        let text = serde_json::to_string_pretty(&made()).unwrap() + "\n";
        if std::env::var_os(WRITE).is_some() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
            return std::fs::write(path, text).unwrap();
        }
        assert!(text == DOCUMENT, "docs/openapi.json is stale: run this test with {WRITE}=1");
    }

    /// What the routers say in their own text; a route that is not in the document is found.
    #[test]
    fn every_route_is_in_the_document_and_no_other() {
        let code = [include_str!("service.rs"), include_str!("admin/routes.rs")].concat();
        let routed: BTreeSet<_> = code
            .split(".route(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .filter(|path| *path != "/openapi.json")
            .collect();
        let made = made();
        let said: BTreeSet<_> =
            made["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(routed, said);
    }

    #[test]
    fn it_names_nothing_but_types() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for name in ["AttachRequest", "KeyGrant", "LeaseStatus", "Problem", "LeaseId"] {
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}
