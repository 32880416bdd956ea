//! The tables as diesel sees them. Written as `diesel print-schema` would; the migrations are the truth. The rows of
//! configuration differ from SQLite's by their times.

// ---- configuration: begin ----
diesel::table! {
    config_versions (business_id) {
        business_id -> Text,
        version -> BigInt,
    }
}

diesel::table! {
    config_changes (id) {
        id -> BigInt,
        business_id -> Text,
        version -> BigInt,
        customer_id -> Nullable<Text>,
        table_name -> Text,
        row_id -> Text,
        #[sql_name = "columns"]
        changed_columns -> Text,
        changed_at -> Timestamptz,
        transaction_id -> BigInt,
    }
}

diesel::table! {
    server_state (name) {
        name -> Text,
        value -> Text,
    }
}

diesel::table! {
    businesses (seq) {
        seq -> BigInt,
        business_id -> Text,
        business_name -> Text,
        email -> Text,
        user_id -> Nullable<Text>,
        timezone -> Text,
        default_metric -> Nullable<Text>,
        enforcement -> Text,
        target_policy -> Text,
        created_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        max_customer_keys -> Integer,
        plan_type -> Nullable<Text>,
        stripe_customer_id -> Nullable<Text>,
        subscription_status -> Nullable<Text>,
        override_ends_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    customers (seq) {
        seq -> BigInt,
        business_id -> Text,
        customer_id -> Text,
        customer_name -> Nullable<Text>,
        email -> Nullable<Text>,
        description -> Nullable<Text>,
        plan_id -> Nullable<Text>,
        stripe_customer_id -> Nullable<Text>,
        stripe_subscription_id -> Nullable<Text>,
        stripe_price_id -> Nullable<Text>,
        subscription_ends_at -> Nullable<Timestamptz>,
        billing_anchor_day -> Nullable<BigInt>,
        metadata -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        subscription_status -> Nullable<Text>,
    }
}

diesel::table! {
    business_keys (seq) {
        seq -> BigInt,
        id -> Text,
        business_id -> Text,
        key_name -> Text,
        description -> Nullable<Text>,
        key_hash -> Binary,
        hash_alg -> Text,
        hint -> Text,
        row_mac -> Nullable<Binary>,
        slot -> Nullable<BigInt>,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
        scopes -> Nullable<Text>,
    }
}

diesel::table! {
    customer_keys (seq) {
        seq -> BigInt,
        id -> Text,
        business_id -> Text,
        customer_id -> Text,
        key_name -> Text,
        description -> Nullable<Text>,
        key_hash -> Binary,
        hash_alg -> Text,
        hint -> Text,
        row_mac -> Nullable<Binary>,
        slot -> Nullable<BigInt>,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
        scopes -> Nullable<Text>,
    }
}

diesel::table! {
    plans (seq) {
        seq -> BigInt,
        id -> Text,
        business_id -> Text,
        plan_name -> Text,
        stripe_price_id -> Nullable<Text>,
        is_free -> Bool,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    plan_limits (seq) {
        seq -> BigInt,
        id -> Text,
        business_id -> Text,
        metric_name -> Text,
        limit_value -> BigInt,
        limit_period -> Text,
        breach_operator -> Text,
        breach_action -> Text,
        plan_id -> Nullable<Text>,
        customer_id -> Nullable<Text>,
        alert_thresholds -> Text,
        webhook_urls -> Nullable<Text>,
        overage_meter -> Nullable<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    metrics (seq) {
        seq -> BigInt,
        business_id -> Text,
        metric_name -> Text,
        scope -> Text,
        operation -> Text,
        metric_type -> Text,
        flush_interval -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        cleanup_after -> Text,
        tags -> Text,
        metadata -> Text,
    }
}

diesel::table! {
    audit_logs (id) {
        id -> BigInt,
        business_id -> Nullable<Text>,
        at -> Timestamptz,
        actor_type -> Text,
        actor_id -> Nullable<Text>,
        action -> Text,
        resource_id -> Text,
        before -> Nullable<Text>,
        after -> Nullable<Text>,
        request_id -> Nullable<Text>,
        transaction_id -> Nullable<BigInt>,
        row_mac -> Nullable<Binary>,
    }
}

diesel::table! {
    key_uses (key_id) {
        key_id -> Text,
        business_id -> Text,
        last_used_at -> Timestamptz,
    }
}
// ---- configuration: end ----

// ---- usage: begin ----
diesel::table! {
    usage_ledger (boot, lane, batch) {
        batch -> BigInt,
        boot -> Text,
        lane -> Integer,
        written_at -> BigInt,
        open_calls -> BigInt,
        open_units -> BigInt,
        entries -> Binary,
    }
}

diesel::table! {
    counters (business_id, customer_id, metric_name) {
        business_id -> Text,
        customer_id -> Text,
        metric_name -> Text,
        state -> Binary,
    }
}

diesel::table! {
    usage_history (business_id, customer_id, metric_name, bucket) {
        business_id -> Text,
        customer_id -> Text,
        metric_name -> Text,
        bucket -> BigInt,
        operation -> Text,
        units -> BigInt,
        samples -> BigInt,
        overage -> BigInt,
        denied -> BigInt,
    }
}

diesel::table! {
    ledger_position (boot, lane) {
        boot -> Text,
        lane -> Integer,
        folded_to -> BigInt,
    }
}

diesel::table! {
    node_boots (boot) {
        boot -> Text,
        started_at -> BigInt,
        seen_at -> BigInt,
        clean_stop -> Bool,
    }
}
// ---- usage: end ----

diesel::allow_tables_to_appear_in_same_query!(businesses, customer_keys);
