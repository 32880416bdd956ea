//! The one table of routes: path, method, who may call, handler.
//!
//! Who may call is the handler's own first argument, an extractor of `identity.rs`; the table names it again and
//! does not compile where the two differ.

use crate::api::{accounts, admin, audit, define, history, keys, limits, metrics, usage};
use crate::call::{envelope, query};
use crate::contract;
use crate::error::{ApiError, Code};
use crate::identity::{
    Admin, Anonymous, Business, BusinessCaller, Caller, Holder, KeyKeeper, Observer, Reader, Scraper,
};
use crate::request::Input;
use actix_web::http::Method;
use actix_web::web;
use utoipa::openapi::{HttpMethod, PathItem};

/// Keeps a handler's first argument equal to what the table says.
fn by<Who, Handler, Answer>(handler: Handler) -> Handler
where
    Handler: Fn(Who, Input) -> Answer,
{
    handler
}

macro_rules! table {
    (@join $only:ident) => { stringify!($only) };
    (@join $first:ident $($rest:ident)+) => { concat!(stringify!($first), $(", ", stringify!($rest)),+) };
    ($($($path:literal)|+ => { $($method:ident $who:ident $area:ident::$handler:ident;)+ })+) => {
        /// Puts every route of the table into an application.
        pub(crate) fn configure(config: &mut web::ServiceConfig) {
            $(config.service(
                web::resource([$($path),+])
                    $(.route(web::method(Method::$method).to(by::<$who, _, _>($area::$handler))))+
                    .default_service(web::to(async || refused_method(table!(@join $($method)+))))
            );)+
        }

        /// The table as text: path, method, who may call.
        const TABLE: &[(&[&str], &[(&str, &str)])] =
            &[$((&[$($path),+], &[$((stringify!($method), stringify!($who))),+])),+];

        /// Every path with its operations as the contract has them.
        pub(crate) fn described() -> Vec<(&'static str, PathItem)> {
            let mut all = Vec::new();
            $(for path in [$($path),+] {
                let mut item = PathItem::default();
                $(
                    let id = concat!(stringify!($area), "_", stringify!($handler));
                    let described = contract::$area::$handler();
                    let operation = described.operation(id, stringify!($method), path, stringify!($who));
                    item.merge_operations(PathItem::new(method!($method), operation));
                )+
                all.push((path, item));
            })+
            all
        }
    };
}

/// The method as OpenAPI has it.
macro_rules! method {
    (GET) => {
        HttpMethod::Get
    };
    (POST) => {
        HttpMethod::Post
    };
    (PUT) => {
        HttpMethod::Put
    };
    (PATCH) => {
        HttpMethod::Patch
    };
    (DELETE) => {
        HttpMethod::Delete
    };
}

table! {
    "/api/v1/proxy" => {
        POST Caller envelope::proxy;
    }
    "/api/v1/check" => {
        POST Caller query::check;
    }
    "/api/v1/track" => {
        POST BusinessCaller query::track;
    }
    "/api/v1/usage" => {
        GET Reader usage::read;
    }
    "/api/v1/metrics" => {
        POST Business define::create;
        GET Reader metrics::list;
    }
    "/api/v1/metrics/{name}" => {
        GET Reader metrics::read;
        PUT Business metrics::update;
        PATCH Business define::update;
        DELETE Business define::delete;
    }
    "/api/v1/metrics/{name}/history" => {
        GET Reader history::read;
    }
    "/api/v1/plan_limits" => {
        POST Business limits::create;
        GET Business limits::list;
    }
    "/api/v1/plan_limits/{id}" => {
        GET Business limits::read;
        PUT Business limits::update;
        DELETE Business limits::delete;
    }
    "/api/v1/plans" => {
        POST Business limits::create_plan;
        GET Business limits::list_plans;
    }
    "/api/v1/plans/{id}" => {
        GET Business limits::read_plan;
        PUT Business limits::update_plan;
        DELETE Business limits::delete_plan;
    }
    "/api/v1/customers" | "/api/v1/businesses/{bid}/customers" => {
        POST Business accounts::create_customer;
        GET Business accounts::list_customers;
    }
    "/api/v1/customers/{cid}" | "/api/v1/businesses/{bid}/customers/{cid}" => {
        GET Business accounts::read_customer;
        PUT Business accounts::update_customer;
        DELETE Business accounts::delete_customer;
    }
    "/api/v1/customers/{cid}/keys" | "/api/v1/businesses/{bid}/customers/{cid}/keys" => {
        POST KeyKeeper keys::create_for_customer;
        GET Business keys::list_of_customer;
    }
    "/api/v1/customers/{cid}/keys/{key}" | "/api/v1/businesses/{bid}/customers/{cid}/keys/{key}" => {
        GET Business keys::read_of_customer;
        DELETE KeyKeeper keys::revoke_of_customer;
    }
    "/api/v1/customers/{cid}/keys/{key}/rotate" | "/api/v1/businesses/{bid}/customers/{cid}/keys/{key}/rotate" => {
        POST KeyKeeper keys::rotate_of_customer;
    }
    "/api/v1/keys/self" => {
        DELETE Holder keys::revoke_self;
    }
    "/api/v1/keys" | "/api/v1/businesses/{bid}/keys" => {
        POST KeyKeeper keys::create;
        GET Business keys::list;
    }
    "/api/v1/keys/{type}/{name}" | "/api/v1/businesses/{bid}/keys/{type}/{name}" => {
        GET Business keys::read;
        DELETE KeyKeeper keys::revoke;
    }
    "/api/v1/keys/{type}/{name}/rotate" | "/api/v1/businesses/{bid}/keys/{type}/{name}/rotate" => {
        POST KeyKeeper keys::rotate;
    }
    "/api/v1/settings" | "/api/v1/businesses/{bid}/settings" => {
        GET Business accounts::read_settings;
        PATCH Business accounts::update_settings;
    }
    "/api/v1/businesses" => {
        POST Admin accounts::create_business;
        GET Admin accounts::list_businesses;
    }
    "/api/v1/businesses/{bid}" => {
        GET Business accounts::read_business;
        PUT Admin accounts::update_business;
        DELETE Admin accounts::delete_business;
    }
    "/api/v1/businesses/{bid}/restore" => {
        POST Admin accounts::restore_business;
    }
    "/api/v1/audit_logs" => {
        GET Business audit::of_business;
    }
    "/admin/audit-logs" => {
        GET Admin audit::of_all;
    }
    "/admin/v1/customers/{bid}/{cid}/reset-billing" => {
        POST Admin admin::reset_billing;
    }
    "/admin/v1/customers/{bid}/{cid}/override" => {
        POST Admin admin::override_customer;
    }
    "/admin/v1/business/{bid}" => {
        GET Admin admin::read_billing;
    }
    "/admin/v1/business/{bid}/override" => {
        POST Admin admin::override_business;
    }
    "/admin/billing-cycle-reset" => {
        POST Admin admin::reset_cycles;
    }
    "/health" => {
        GET Anonymous usage::health;
    }
    "/openapi.json" => {
        GET Anonymous usage::openapi;
    }
    "/metrics" => {
        GET Scraper usage::meters;
    }
    "/ready" => {
        GET Observer usage::ready;
    }
}

/// One operation of the API, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// `GET`, `POST` and so on.
    pub method: &'static str,
    /// The path, with its parameters in braces.
    pub path: &'static str,
    /// Who may call: the name of the extractor that lets callers in.
    pub who: &'static str,
}

/// Every operation on every path.
pub fn operations() -> impl Iterator<Item = Operation> {
    TABLE.iter().flat_map(|(paths, methods)| {
        paths
            .iter()
            .flat_map(move |path| methods.iter().map(move |(method, who)| Operation { method, path, who }))
    })
}

fn refused_method(allow: &'static str) -> Result<String, ApiError> {
    Err(ApiError::method_not_allowed(allow))
}

/// The answer to a path that no route has.
pub(crate) fn no_such_route() -> ApiError {
    ApiError::new(Code::NotFound, "There is no such route; see the API reference.")
}

/// The handler for every path that no route has.
pub(crate) async fn unknown() -> Result<String, ApiError> {
    std::future::ready(Err(no_such_route())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_stands_once_and_only_health_and_the_contract_are_open() {
        let mut paths: Vec<_> = TABLE.iter().flat_map(|row| row.0).collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count);
        for (paths, methods) in TABLE {
            let is_open = methods.iter().any(|(_, who)| matches!(*who, "Anonymous" | "Observer"));
            assert_eq!(is_open, matches!(paths[0], "/health" | "/ready" | "/openapi.json"), "{paths:?}");
        }
    }

    #[test]
    fn a_refused_method_names_the_others() {
        assert_eq!(table!(@join GET PUT DELETE), "GET, PUT, DELETE");
    }
}
