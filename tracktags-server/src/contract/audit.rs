//! The trail of changes, as the contract has it.

use super::Described;
use super::objects::audit_record;
use crate::schema::Kind;

fn lists(summary: &'static str) -> Described {
    Described::of("Audit", summary)
        .query("action", Kind::text(), "One kind of change, such as `limit.update`.")
        .query("resource_type", Kind::text(), "Changes of one kind of thing, such as `limit`.")
        .query("from", Kind::time(), "From this instant on.")
        .query("to", Kind::time(), "Before this instant.")
        .lists("audit_logs", audit_record().object())
}

pub(crate) fn of_business() -> Described {
    lists("Lists a business's changes, newest first.")
}

pub(crate) fn of_all() -> Described {
    lists("Lists the changes of all businesses, newest first.")
        .query("business_id", Kind::text(), "Those of this business, present or gone.")
        .fails(&[crate::error::Code::BusinessNotFound])
}
