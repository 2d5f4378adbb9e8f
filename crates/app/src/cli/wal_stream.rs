//! `retoma wal stream`.

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::{self, Printer};
use retoma_control::Interrupt;
use retoma_control::wal::stream::{self, StreamEvent, StreamJob};
use retoma_core::decide::streaming::Position;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component of kind `postgres`
    component: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    if let Some(name) = &context.repository {
        let message =
            format!("`wal stream` stores in every repository of the component, not in `{name}` alone");
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
            .with_hint("leave `--repository` out, or list the component's `repositories` in the manifest"));
    }
    let manifest = context.manifest()?.manifest;
    let component = context::component(&manifest, &args.component)?;
    let job = StreamJob::new(&manifest, component)?;
    let interrupt = Interrupt::new(context.interrupt.flag());
    stream::stream(&job, &interrupt, &mut |event| show(context.printer, &args.component, event))?;
    Ok(Exit::Ok)
}

fn show(printer: Printer, component: &str, event: &StreamEvent<'_>) {
    match event {
        StreamEvent::Raised { .. } | StreamEvent::Gap { .. } => printer.warning(&event.to_string()),
        // Every second one, and only numbers: for programs.
        StreamEvent::Shipped { .. } => {}
        _ => printer.note(&event.to_string()),
    }
    let mut value = object(event);
    if let Value::Object(map) = &mut value {
        map.insert("event".to_owned(), json!(event.as_str()));
        map.insert("component".to_owned(), json!(component));
        map.insert("time".to_owned(), json!(jiff::Timestamp::now().to_string()));
    }
    printer.json_line("retoma.wal-stream/1", value);
}

fn object(event: &StreamEvent<'_>) -> Value {
    let at =
        |position: &Position| json!({ "timeline": position.timeline.get(), "lsn": position.lsn.to_string() });
    match event {
        StreamEvent::Connected { system_identifier, start, slot } => {
            json!({ "system_identifier": system_identifier.to_string(), "position": at(start), "slot": slot })
        }
        StreamEvent::Shipped { position, lag_bytes, lag } => {
            json!({ "position": at(position), "lag_bytes": lag_bytes, "lag_seconds": lag.as_secs_f64() })
        }
        StreamEvent::Timeline { start } => json!({ "position": at(start) }),
        StreamEvent::Gap { from, to, error } => {
            json!({ "from": at(from), "to": at(to), "error": output::error_object(error) })
        }
        StreamEvent::Raised { alarm, error } => json!({
            "alarm": alarm.as_str(), "repository": alarm.repository(), "error": output::error_object(error),
        }),
        StreamEvent::Cleared { alarm } => {
            json!({ "alarm": alarm.as_str(), "repository": alarm.repository() })
        }
        StreamEvent::Stopped => json!({}),
    }
}
