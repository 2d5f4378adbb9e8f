//! `[agent]` and `[alerts]`.

use super::view::View;
use crate::error::codes;
use crate::manifest::agent::{AgentOptions, AlertOptions, Receiver};
use crate::manifest::mail::{self, Email, MailSecurity};
use crate::manifest::paths;
use crate::manifest::problem::{Draft, quoted};
use crate::manifest::secret_ref::SecretRef;
use std::path::Path;

/// The agent's options; `None` when they contradict each other.
pub(super) fn agent(view: Option<View<'_>>, dir: &Path, found: &mut Vec<Draft>) -> Option<AgentOptions> {
    let usual = AgentOptions::default();
    let Some(view) = view else { return Some(usual) };
    let options = AgentOptions {
        listen: view.text("listen").and_then(|text| text.parse().ok()).unwrap_or(usual.listen),
        token: view.text("token").and_then(|text| SecretRef::parse(text).ok()).map(|it| it.resolved(dir)),
        retention_every: view.duration("retention_every").unwrap_or(usual.retention_every),
        verify_every: view.duration("verify_every").unwrap_or(usual.verify_every),
        verify_sample_percent: view.number("verify_sample_percent").unwrap_or(usual.verify_sample_percent),
        wal_check_every: view.duration("wal_check_every").unwrap_or(usual.wal_check_every),
        copy_every: view.duration("copy_every").unwrap_or(usual.copy_every),
        marks_every: view.duration("marks_every").unwrap_or(usual.marks_every),
        drill: view.text("drill").map(str::to_owned),
        drill_every: view.duration("drill_every").unwrap_or(usual.drill_every),
    };
    if !options.listen.ip().is_loopback() && !view.has("token") {
        let message = format!("`listen` is `{}`, and everybody who reaches it may ask", options.listen);
        found.push(
            Draft::error(codes::MANIFEST_CONFLICT, view.span_of("listen"), message)
                .hint("add `token = \"file:PATH\"`, or listen on 127.0.0.1"),
        );
        return None;
    }
    if view.has("drill_every") && options.drill.is_none() {
        found.push(
            Draft::warning(
                codes::MANIFEST_UNUSED,
                view.span_of("drill_every"),
                "`drill_every` without `drill` has no effect",
            )
            .hint("add `drill = \"deletion\"`, or remove it"),
        );
    }
    Some(options)
}

/// The receivers of alerts; `None` when something of them is wrong.
pub(super) fn alerts(view: Option<View<'_>>, dir: &Path, found: &mut Vec<Draft>) -> Option<AlertOptions> {
    let receiver = |key| {
        let text = view?.text(key)?;
        Some(match SecretRef::parse(text) {
            Ok(reference) => Receiver::Reference(reference.resolved(dir)),
            Err(_) => Receiver::Literal(text.to_owned()),
        })
    };
    let email = match view.and_then(|view| view.table("email")) {
        Some(view) => Some(email(view, dir, found)?),
        None => None,
    };
    Some(AlertOptions {
        webhook: receiver("webhook"),
        alertmanager: receiver("alertmanager"),
        dead_man: receiver("dead_man"),
        email,
    })
}

fn email(view: View<'_>, dir: &Path, found: &mut Vec<Draft>) -> Option<Email> {
    let security = view.text("security").and_then(MailSecurity::from_name).unwrap_or_default();
    let server = view.text("server").and_then(mail::server);
    if let Some((host, _)) =
        server.filter(|(host, _)| security == MailSecurity::None && !mail::is_loopback(host))
    {
        let message = format!("alerts would go to {} for everybody on the way to read", quoted(host));
        found.push(
            Draft::error(codes::MANIFEST_CONFLICT, view.span_of("security"), message)
                .hint("take `security = \"starttls\"` or `\"tls\"`; `none` is for a server on this machine"),
        );
        return None;
    }
    for (key, other) in [("user", "password"), ("password", "user")] {
        if view.has(key) && !view.has(other) {
            let message = format!("`{key}` without `{other}` logs nobody in");
            found.push(
                Draft::error(codes::MANIFEST_CONFLICT, view.span_of(key), message)
                    .hint(format!("add `{other}`, or remove `{key}`")),
            );
            return None;
        }
    }
    let login = match (view.text("user"), view.text("password")) {
        (Some(user), Some(password)) => {
            Some((user.to_owned(), SecretRef::parse(password).ok()?.resolved(dir)))
        }
        _ => None,
    };
    let (host, port) = server?;
    Some(Email {
        host: host.to_owned(),
        port,
        security,
        ca_file: view.text("ca_file").map(|path| paths::resolve(dir, Path::new(path))),
        from: view.text("from")?.to_owned(),
        to: view.texts("to")?.into_iter().map(|(text, _)| text.to_owned()).collect(),
        login,
    })
}
