//! `retoma restore COMPONENT --table DATABASE.SCHEMA.TABLE`.

use super::target;
use crate::context::Context;
use crate::exit::Exit;
use retoma_control::Interrupt;
use retoma_control::recover::extract::{Extraction, Wanted, extract};
use retoma_control::recover::{self, Place, Request};
use retoma_core::decide::recovery::Goal;
use retoma_core::manifest::{ComponentKind, Manifest};
use retoma_core::units::ByteSize;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// What is wanted of which component.
pub(super) struct Asked<'a> {
    pub(super) component: &'a str,
    pub(super) table: &'a str,
    pub(super) goal: Goal,
    pub(super) snapshot: Option<&'a str>,
    pub(super) target: &'a Path,
    pub(super) dry_run: bool,
}

pub(super) fn run(
    context: &Context,
    manifest: &Manifest,
    repository: &Repository,
    asked: Asked<'_>,
) -> Result<Exit> {
    let wrong = |what: String, hint: &'static str| {
        Err(Error::new(ErrorKind::Invalid, codes::USAGE, what).with_hint(hint))
    };
    let wanted: Wanted = match asked.table.parse() {
        Ok(wanted) => wanted,
        Err(why) => {
            let what = format!("`{}` is no table: {why}", asked.table.escape_debug());
            return wrong(what, "name all three parts, such as `shop.public.orders`");
        }
    };
    let component = manifest.component(asked.component);
    let Some(component) = component.filter(|it| it.kind() == ComponentKind::Postgres) else {
        let what = format!("`{}` is no PostgreSQL server of the manifest", asked.component.escape_debug());
        return wrong(what, "`--table` is for a component of kind `postgres`");
    };
    let request =
        Request { goal: asked.goal, snapshot: asked.snapshot, ..Request::newest(repository, Place::InPlace) };
    let (snapshot, planned) = recover::plan_server(&request, component)?;
    context.printer.note(&target::in_words(&component.name, &planned));
    planned.care.iter().for_each(|care| context.printer.warning(care));
    let value = |done| {
        json!({ "component": component.name, "kind": "postgres", "snapshot": snapshot.to_hex(), "target": asked.target,
                "dry_run": asked.dry_run, "table": wanted.to_string(), "extracted": done })
    };
    if asked.dry_run {
        context.printer.json("retoma.restore/1", value(serde_json::Value::Null));
        return Ok(Exit::Ok);
    }
    let started = Instant::now();
    let folder =
        std::path::absolute(asked.target).map_err(|error| Error::io(asked.target.display(), error))?;
    let (supervisor, interrupt) = (super::shell::supervisor()?, Interrupt::new(context.interrupt.flag()));
    let extraction =
        Extraction { repository, component, snapshot, planned: &planned, wanted: &wanted, folder: &folder };
    let done = extract(&extraction, &supervisor, &interrupt)?;
    let seconds = started.elapsed().as_secs_f64();
    context.printer.data(&format!(
        "`{wanted}`: {} of SQL in `{}`, {seconds:.1} s",
        ByteSize(done.bytes),
        done.path.display()
    ));
    context.printer.data(&target::reached_in_words(&done.report));
    context.printer.note(&format!(
        "nothing else was touched; look at it, then load it: psql -v ON_ERROR_STOP=1 -1 -f '{}' DATABASE",
        done.path.display()
    ));
    let extracted = json!({ "path": done.path, "size_bytes": done.bytes, "duration_seconds": seconds,
                            "recovery": target::reached(&done.report) });
    context.printer.json("retoma.restore/1", value(extracted));
    Ok(Exit::Ok)
}
