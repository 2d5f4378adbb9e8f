//! The demo with a PostgreSQL server: made in the run's folder, protected, drilled, stopped.

use super::{Demo, Shown, in_a_run, parse};
use crate::backup;
use crate::drill;
use crate::durable;
use crate::open::{make_password, open_address};
use crate::postgres::{Instance, SOCKETS, Serve};
use crate::service::{Ended, run_to_end};
use crate::watch::Note;
use retoma_core::manifest::{Command, quote};
use retoma_core::render::report;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::evidence::SigningKey;
use retoma_sources::ScratchFolder;
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts};
use retoma_sources::postgres::{PostgresFacts, Programs, Server};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// How long making or starting the server may take.
const LIMIT: Duration = Duration::from_mins(2);
/// What the server holds.
const SEED: &str = "CREATE TABLE matches AS SELECT n AS id, 'team ' || n % 400 AS home, 'team ' || n % 397 AS away \
     FROM generate_series(1, 50000) AS n; ALTER TABLE matches ADD PRIMARY KEY (id); \
     CREATE TABLE predictions AS SELECT n AS id, n % 50000 + 1 AS match, random() AS chance FROM generate_series(1, 200000) AS n; \
     ALTER TABLE predictions ADD PRIMARY KEY (id); ANALYZE";

/// Cleans up after earlier runs, then runs the demo with a server.
///
/// # Errors
/// `R0424` without PostgreSQL's programs, `R0713` as root where there is no user `postgres`; otherwise as [`super::run`].
pub(super) fn run(demo: &Demo<'_>) -> Result<Shown> {
    let (programs, version_num) = Programs::newest()?;
    let user = server_user()?;
    in_a_run(demo, |folder| in_folder(demo, folder, &programs, version_num, user))
}

fn in_folder(
    demo: &Demo<'_>,
    folder: &Path,
    programs: &Programs,
    version_num: u32,
    user: Option<(u32, u32)>,
) -> Result<Shown> {
    let doing = |what: &str| demo.watch.note(&Note::Doing(what.to_owned()));
    doing("make a PostgreSQL server with data");
    // The server's user has to pass, and need not look around.
    for passable in [demo.base, folder] {
        std::fs::set_permissions(passable, std::fs::Permissions::from_mode(0o711))
            .map_err(|error| Error::io(passable.display(), error))?;
    }
    let data = folder.join("server");
    std::fs::create_dir(&data).map_err(|error| Error::io(data.display(), error))?;
    if let Some((user, group)) = user {
        std::os::unix::fs::chown(&data, Some(user), Some(group))
            .map_err(|error| Error::io(data.display(), error))?;
    }
    initdb(demo, programs, &data, user)?;
    let sockets = ScratchFolder::new(SOCKETS)?;
    let facts = facts(version_num);
    let serve = Serve {
        supervisor: demo.supervisor,
        data: &data,
        facts: &facts,
        folder: sockets.path(),
        archiving: None,
    };
    let server = Instance::serve(&serve, LIMIT, demo.interrupt).context("start the demo's server")?;
    let address = server.address("postgres");
    Connection::connect(&address, Mode::Sql, Timeouts::default())?.execute(SEED)?;

    let password = make_password(&folder.join("password"))?;
    let key = SigningKey::generate()?;
    key.save_new(&folder.join("evidence.key"))?;
    let text = manifest_text(folder, &address.to_string(), &key);
    let manifest_path = folder.join(backup::MANIFEST_NAME);
    durable::write(&manifest_path, text.as_bytes(), durable::SHARED)?;
    let manifest = parse(&text, folder)?;
    doing("back it up");
    let repository_dir = folder.join("repository");
    let repository = open_address(&drill::address_of(&repository_dir)?, &password, true)?.repository;
    backup::backup_manifest(&manifest, &text, &repository, &Progress::default())?;
    for component in &manifest.components {
        let progress = Progress::default();
        demo.interrupt.during(&progress, || backup::backup(&manifest, component, &repository, &progress))?;
    }
    drop(repository);
    let repeat = format!("retoma demo --scenario {}", demo.scenario);
    let context = demo.context(&repeat);
    let described = manifest.repositories.first();
    let described = described.ok_or_else(|| Error::internal("the demo's manifest has no repository"))?;
    let report = drill::drill(&manifest, &text, described, &[], demo.scenario, &context)?;
    server.stop().context("stop the demo's server")?;
    let (page, json) = (folder.join("report.html"), folder.join("report.json"));
    durable::write(&page, report::page(&report, demo.language).as_bytes(), durable::SHARED)?;
    durable::write(&json, report.to_json()?.as_bytes(), durable::SHARED)?;
    for path in [&page, &json] {
        demo.watch.note(&Note::Wrote(path.clone()));
    }
    Ok(Shown { report, folder: folder.to_owned(), page, json, manifest_path, manifest })
}

fn initdb(demo: &Demo<'_>, programs: &Programs, data: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let program = programs.path("initdb").display().to_string();
    let place = data.display().to_string();
    let own = ["-k", "-N", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "-D", &place];
    let mut words: Vec<String> = user.map_or_else(Vec::new, |(user, group)| {
        let dressed = [format!("--reuid={user}"), format!("--regid={group}")];
        let rest = ["--clear-groups", "--", program.as_str()].map(str::to_owned);
        dressed.into_iter().chain(rest).collect()
    });
    words.extend(own.map(str::to_owned));
    let program = if user.is_some() { "setpriv".to_owned() } else { program };
    let command = Command { program, arguments: words };
    let silent = [Stdio::null(), Stdio::null()];
    match run_to_end(&command, data, silent, LIMIT, demo.interrupt)? {
        Ended::With(status) if status.success() => Ok(()),
        _ => {
            let message = format!("`initdb` could not make a server in `{}`", data.display());
            Err(Error::new(ErrorKind::Unavailable, codes::POSTGRES_NOT_UP, message)
                .with_hint("run it by hand there and see what it says; `--folder DIR` names another place"))
        }
    }
}

/// Whom the server runs as: PostgreSQL refuses to run as root.
fn server_user() -> Result<Option<(u32, u32)>> {
    if retoma_repo::host::ids().0 != 0 {
        return Ok(None);
    }
    let path = Path::new("/etc/passwd");
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path.display(), error))?;
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find_map(|fields| match fields[..] {
        ["postgres", _, user, group, ..] => Some((user.parse().ok()?, group.parse().ok()?)),
        _ => None,
    });
    found.map(Some).ok_or_else(|| {
        let message = "PostgreSQL refuses to run as root, and there is no user `postgres`";
        Error::new(ErrorKind::Invalid, codes::DRILL_UNSUITED, message)
            .with_hint("run the demo as another user")
    })
}

/// What is known of a server that is only made: nobody has captured it yet.
fn facts(version_num: u32) -> PostgresFacts {
    PostgresFacts {
        schema: String::new(),
        kind: String::new(),
        server: Server {
            version_num,
            catalog_version: 0,
            system_identifier: 0,
            data_directory: String::new(),
            data_checksums: true,
            wal_segment_bytes: 0,
            max_data_alignment: 0,
            machine: String::new(),
            shared_preload_libraries: String::new(),
            superuser: "postgres".to_owned(),
        },
        timeline: 1,
        start_lsn: String::new(),
        stop_lsn: String::new(),
        stop_time: None,
        stop_transactions: None,
        chunk_bytes: 0,
        tablespaces: Vec::new(),
        databases: Vec::new(),
        bad_pages: Vec::new(),
    }
}

fn manifest_text(folder: &Path, address: &str, key: &SigningKey) -> String {
    let file = |name: &str| quote(&format!("file:{}", folder.join(name).display()));
    let url = quote(&format!("file://{}", folder.join("repository").display()));
    let (password, signing_key) = (file("password"), file("evidence.key"));
    let public_key = quote(&key.public_key().to_string());
    let (address, scratch) = (quote(address), quote(&folder.join("drill").display().to_string()));
    format!(
        "# The demo's manifest. `docs/manifest.md` explains every key.\nversion = 1\n\n\
         [service]\nname = \"marabet\"\n\n\
         [[repository]]\nname = \"local\"\nurl = {url}\npassword = {password}\n\n\
         [[component]]\nname = \"database\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = {address}\n\n\
         [component.wal]\nmode = \"stream\"\n\n\
         [[component.check]]\nsql = \"SELECT count(*) FROM predictions\"\nexpect = \"200000\"\n\n\
         [evidence]\nsigning_key = {signing_key}\npublic_key = {public_key}\n\n\
         [drill]\nscratch_dir = {scratch}\ntimeout_seconds = 300\n"
    )
}
