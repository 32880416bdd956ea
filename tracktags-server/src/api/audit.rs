//! The trail of changes, as a business and as the admin read it.

use super::accounts::business_in_query;
use super::history::time;
use super::{Answer, Shape, shape};
use crate::form::Problems;
use crate::identity::{Admin, Business};
use crate::lists::List;
use crate::request::Input;
use serde_json::Value;
use tracktags_core::accounts::BusinessId;
use tracktags_core::audit::{AuditQuery, AuditRecord};

fn shown(record: AuditRecord) -> Shape {
    let side = |side: Option<String>| -> Value {
        side.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    };
    let resource = record.action.split('.').next().unwrap_or_default().to_owned();
    shape! {
        "id": record.id.to_string(),
        "business_id": record.business,
        "at": record.at,
        "actor": shape! {"type": record.actor, "id": record.actor_id},
        "action": record.action,
        "resource_type": resource,
        "resource_id": record.resource_id,
        "before": side(record.before),
        "after": side(record.after),
        "request_id": record.request_id,
    }
}

async fn list(input: Input, business: Option<BusinessId>) -> Answer {
    let tenant = business.as_ref().map_or("", BusinessId::as_str);
    let list = List::asked(&input, "audit_logs", tenant)?;
    let mut problems = Problems::default();
    let (from, to) = (time(&mut problems, &input, "from"), time(&mut problems, &input, "to"));
    problems.finish()?;
    let (action, resource_type) = (input.query("action"), input.query("resource_type"));
    let query = AuditQuery { business, action, resource_type, from, to, page: list.page };
    Ok(list.answer(input.app.store.audit_logs(query).await?, shown))
}

/// `GET /api/v1/audit_logs`
pub(crate) async fn of_business(business: Business, input: Input) -> Answer {
    list(input, Some(business.id)).await
}

/// `GET /admin/audit-logs`: of all tenants, or of one of them, present or gone.
pub(crate) async fn of_all(_: Admin, input: Input) -> Answer {
    let business = business_in_query(&input)?;
    list(input, business).await
}
