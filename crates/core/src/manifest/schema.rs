//! The JSON Schema (draft 2020-12) with which editors check and complete a manifest.
//!
//! It says less than `check` and `resolve` do: rules about several keys, such as schedule against RPO, are not in it.

use super::address;
use super::check::RESERVED;
use super::fields::{Field, Kind, ROOT, Section};
use serde_json::{Map, Value, json};

/// A length of time.
const DURATION: &str = "^(?=.)([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$";
/// A reference to a secret.
const REFERENCE: &str = "^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^~].*)$";
const KEY_REFERENCE: &str = "^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^~].*|transit:https?://.+/v1/.+/keys/.+)$";

/// The schema as indented JSON that ends with a line end; the same text each time.
pub fn json_schema() -> String {
    let mut schema = section(&ROOT);
    if let Value::Object(schema) = &mut schema {
        schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        schema.insert("title".into(), json!("retoma.toml"));
        schema.insert("description".into(), json!("The manifest of Retoma, version 1."));
    }
    // Another crate may switch serde_json to keep the order of insertion; the text must not depend on that.
    schema.sort_all_objects();
    format!("{schema:#}\n")
}

fn section(section: &Section) -> Value {
    let mut properties = Map::new();
    for field in section.fields {
        properties.insert(field.name.into(), property(field));
    }
    let is_always_required = |field: &&Field| field.required && field.only_for.is_empty();
    let required: Vec<_> = section.fields.iter().filter(is_always_required).map(|field| field.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": section.doc,
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let conditions: Vec<_> =
        section.fields.iter().filter(|field| !field.only_for.is_empty()).map(condition).collect();
    if !conditions.is_empty() {
        schema["allOf"] = json!(conditions);
    }
    schema
}

/// A key that only some kinds of components have.
fn condition(field: &Field) -> Value {
    let then = if field.required { json!({ "required": [field.name] }) } else { json!({}) };
    json!({
        "if": { "properties": { "kind": { "enum": field.only_for } }, "required": ["kind"] },
        "then": then,
        "else": { "properties": { field.name: false } },
    })
}

fn property(field: &Field) -> Value {
    let mut schema = value(field);
    let default = field.default.map(|default| format!(" Default: {default}.")).unwrap_or_default();
    schema["description"] = json!(format!("{}{default}", field.doc));
    schema
}

fn value(field: &Field) -> Value {
    match field.kind {
        Kind::Version => json!({ "const": 1 }),
        Kind::Text => json!({ "type": "string" }),
        Kind::FilledText | Kind::Path => json!({ "type": "string", "minLength": 1 }),
        Kind::Integer(min, i64::MAX) => json!({ "type": "integer", "minimum": min }),
        Kind::Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Duration => json!({ "type": "string", "pattern": DURATION }),
        Kind::Minutes => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": DURATION }] })
        }
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Name => name(),
        Kind::Names => json!({ "type": "array", "items": name(), "minItems": 1, "uniqueItems": true }),
        Kind::Command => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
        Kind::DatabaseTables => {
            json!({ "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1, "uniqueItems": true })
        }
        Kind::Patterns => json!({ "type": "array", "items": { "type": "string", "minLength": 1 } }),
        Kind::SecretRef => json!({ "type": "string", "pattern": REFERENCE }),
        Kind::KeyRef => json!({ "type": "string", "pattern": KEY_REFERENCE }),
        Kind::RepositoryUrl => address_of(&address::Scheme::NAMES),
        Kind::HttpUrl => address_of(address::HTTP),
        Kind::Receiver => {
            json!({ "anyOf": [address_of(address::HTTP), { "type": "string", "pattern": REFERENCE }] })
        }
        Kind::MailAddress => mail_address(),
        Kind::MailAddresses => {
            json!({ "type": "array", "items": mail_address(), "minItems": 1, "uniqueItems": true })
        }
        Kind::Listen | Kind::MailServer => json!({ "type": "string", "pattern": "^.+:[0-9]+$" }),
        Kind::ServerUrl => {
            let schemes = [address::POSTGRES, address::REDIS].concat();
            json!({ "anyOf": [address_of(&schemes), { "type": "string", "pattern": REFERENCE }] })
        }
        Kind::Amount => json!({ "type": "string", "pattern": "^[0-9]{1,7}([.][0-9]{1,9})?$" }),
        Kind::PublicKey => json!({ "type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$" }),
        Kind::Table(inner) => section(inner),
        Kind::Tables(inner) if field.required => {
            json!({ "type": "array", "items": section(inner), "minItems": 1 })
        }
        Kind::Tables(inner) => json!({ "type": "array", "items": section(inner) }),
        Kind::PerTier(_) => field.per_tier().map_or_else(|| json!({ "type": "object" }), section),
    }
}

fn mail_address() -> Value {
    json!({ "type": "string", "pattern": "^[^@\\s]+@[^@\\s]+$" })
}

fn name() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$", "not": { "enum": RESERVED } })
}

fn address_of(schemes: &[&str]) -> Value {
    json!({ "type": "string", "pattern": format!("^({})://.", schemes.join("|")) })
}
