//! The contract as a machine reads it: OpenAPI 3.1, made from the table of routes.
//!
//! Each operation is described by the function of its area and name here: the table does not compile without it. What a
//! body may hold is not written down a second time: its reader is run once and tells ([`learn`]). What is answered is
//! written here and held against real answers by the end-to-end tests.

pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod audit;
pub(crate) mod define;
pub(crate) mod envelope;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod metrics;
mod objects;
mod operation;
pub(crate) mod query;
pub(crate) mod usage;

use crate::form::Form;
use crate::schema::Fields;
pub(crate) use operation::Described;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    Components, ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApiBuilder, PathItem, PathsBuilder,
};

/// What a body may hold, as its reader takes it.
pub(crate) fn learn(read: impl FnOnce(Form)) -> Fields {
    let (form, learned) = Form::learning();
    read(form);
    learned.take()
}

/// The document with these paths.
pub(crate) fn document(paths: Vec<(&'static str, PathItem)>) -> String {
    let paths = paths.into_iter().fold(PathsBuilder::new(), |all, (path, item)| all.path(path, item));
    let info = InfoBuilder::new()
        .title("TrackTags")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Usage limits for a business's customers, enforced on every request."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
    let document = OpenApiBuilder::new().info(info.build()).paths(paths).components(Some(components()));
    // Texts, numbers and lists: there is nothing in it that JSON cannot say.
    document.build().to_json().unwrap_or_default()
}

fn components() -> Components {
    let key = |scheme: HttpAuthScheme, about: &str| {
        SecurityScheme::Http(HttpBuilder::new().scheme(scheme).description(Some(about)).build())
    };
    let header = |name: &str, about: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, about)))
    };
    objects::all()
        .into_iter()
        .fold(ComponentsBuilder::new(), |all, (name, object)| all.schema(name, object))
        .security_scheme(
            operation::BEARER,
            key(HttpAuthScheme::Bearer, "A business's key (tk_live_…), or a customer's (ck_live_…)."),
        )
        .security_scheme(operation::API_KEY, header("X-API-Key", "The same key in a header of its own."))
        .security_scheme(operation::ADMIN_KEY, header("X-Admin-Key", "The platform admin's key."))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    fn made() -> Value {
        serde_json::from_str(&document(crate::routes::described())).unwrap()
    }

    #[test]
    fn every_operation_of_the_table_is_described_once() {
        let document = made();
        assert_eq!(document["openapi"], "3.1.0");
        let mut ids = BTreeSet::new();
        for operation in crate::routes::operations() {
            let described = &document["paths"][operation.path][operation.method.to_lowercase()];
            let id = described["operationId"].as_str().unwrap_or_else(|| panic!("{operation:?}"));
            assert!(ids.insert(id.to_owned()), "{id} twice");
            let named: BTreeSet<_> = operation
                .path
                .split('/')
                .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')))
                .collect();
            let parameters = described["parameters"].as_array().cloned().unwrap_or_default();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let told: BTreeSet<_> = in_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(told, named, "{operation:?}");
        }
        let count: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn a_body_is_what_its_reader_takes() {
        let document = made();
        let body = &document["paths"]["/api/v1/plan_limits"]["post"]["requestBody"]["content"]["application/json"]
            ["schema"];
        assert_eq!(body["required"], serde_json::json!(["limit_value", "metric_name"]));
        assert_eq!(body["additionalProperties"], false);
        assert_eq!(body["properties"]["limit_value"]["maximum"], 9_007_199_254_740_991_i64);
        assert_eq!(body["properties"]["plan_id"]["type"], serde_json::json!(["string", "null"]));
        assert!(body["properties"]["limit_period"]["enum"].as_array().unwrap().contains(&"monthly".into()));
    }

    #[test]
    fn every_shared_object_that_is_named_exists() {
        let document = made();
        let text = document.to_string();
        for part in text.split("\"#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
