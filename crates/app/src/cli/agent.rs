//! `retoma agent`.

use crate::context::Context;
use crate::exit::Exit;
use crate::http;
use retoma_control::Interrupt;
use retoma_control::agent::{Agent, Notify, Settings, State, Tell, watchdog};
use retoma_control::keyring;
use retoma_core::Result;
use retoma_core::manifest::Manifest;
use retoma_core::render::systemd::{Unit, unit};
use retoma_core::render::{metrics, monitoring};
use retoma_core::{Error, ResultExt};
use retoma_repo::host;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The state folder beside the manifest.
const STATE: &str = ".retoma/agent";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of journal and locks (default: `.retoma/agent` beside the manifest)
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print what runs or watches the agent instead of running it
    #[arg(long, value_name = "WHAT")]
    print: Option<Print>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Print {
    /// The systemd unit, for this user and this manifest
    Systemd,
    /// Alert rules for Prometheus
    AlertRules,
    /// The page of all metrics
    Metrics,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    match args.print {
        Some(Print::AlertRules) => context.printer.raw(monitoring::alert_rules().as_bytes()),
        Some(Print::Metrics) => context.printer.raw(metrics::page().as_bytes()),
        Some(Print::Systemd) => {
            let manifest = context.manifest()?.manifest;
            let program = program()?;
            let text = unit(&Unit {
                service: manifest.service.name.clone(),
                program,
                manifest: absolute(&context.manifest_path)?,
                user: host::username(),
                writes: writes(&manifest, &state_folder(&manifest, args)?),
            });
            context.printer.raw(text.as_bytes());
        }
        None => return keep(context, args),
    }
    Ok(Exit::Ok)
}

fn keep(context: &Context, args: &Args) -> Result<Exit> {
    let manifest = Arc::new(context.manifest()?.manifest);
    let state = State::take(&state_folder(&manifest, args)?)?;
    let folder = state.folder().to_owned();
    let printer = context.printer;
    let tell: Tell = Arc::new(move |text: &str| printer.note(text));
    let interrupt = Interrupt::new(context.interrupt.flag());
    let token = manifest.agent.token.as_ref().map(retoma_control::open::secret).transpose()?;
    let settings = Settings {
        manifest_path: absolute(&context.manifest_path)?,
        program: program()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host::hostname(),
        interrupt: interrupt.clone(),
        tell: Arc::clone(&tell),
        notify: Notify::new(std::env::var_os("NOTIFY_SOCKET")),
        watchdog: watchdog(std::env::var_os("WATCHDOG_USEC").as_deref()),
        manifest: Arc::clone(&manifest),
    };
    // What the agent opens, its streams and its children open without deriving the key again.
    let _kept = keyring::keep();
    let agent = Agent::new(settings, state).context("start the agent")?;
    let listen = http::Listen { address: manifest.agent.listen, token, file: folder.join("address") };
    let server = http::start(listen, agent.board(), interrupt.clone(), tell)?;
    let ended = agent.run();
    // Whatever ended the agent ends its server too.
    interrupt.set();
    server.join().ok();
    ended.map(|()| Exit::Ok)
}

fn state_folder(manifest: &Manifest, args: &Args) -> Result<PathBuf> {
    match &args.state {
        Some(folder) => absolute(folder),
        None => Ok(manifest.dir().join(STATE)),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::io(path.display(), error))
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Error::io("this program", error))
}

/// What the agent and its children write to.
fn writes(manifest: &Manifest, state: &Path) -> Vec<PathBuf> {
    let repositories = manifest.repositories.iter().filter_map(|it| it.folder().map(Path::to_owned));
    // `.retoma` holds the spool of WAL too; the system makes it before the unit starts only where it is there already.
    let own = [state.to_owned(), manifest.dir().join(".retoma")];
    own.into_iter().chain(repositories).chain(manifest.drill.scratch_dir.clone()).collect()
}
