//! A PostgreSQL server for the benchmark, in a folder of its own, reachable over a socket only.

use crate::sh::{self, Result};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const PORT: u16 = 5432;

/// A running server; dropping it stops it.
pub(super) struct Cluster {
    folder: PathBuf,
}

/// `pgbench` in the background.
pub(super) struct Load {
    child: std::cell::RefCell<Child>,
    log: PathBuf,
}

impl Cluster {
    /// Makes and fills it. Commits do not wait for the disk: what the tools do is measured, not the server.
    pub(super) fn start(folder: &Path, scale: u64) -> Result<Self> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        let folder = folder.join("server");
        sh::make_dir(&folder)?;
        if is_root()? {
            sh::run(Command::new("chown").arg("postgres").arg(&folder))?;
        }
        let cluster = Self { folder };
        sh::output(cluster.program("initdb").args(["-k", "-N", "-U", "postgres", "-D"]).arg(cluster.data()))?;
        cluster.configure("off")?;
        let mut start = cluster.program("pg_ctl");
        start.arg("-D").arg(cluster.data()).arg("-l").arg(cluster.folder.join("log")).args(["-w", "start"]);
        sh::run(start.stdout(Stdio::null()))?;
        println!("bench: fills a server at scale {scale}");
        sh::output(cluster.client("pgbench").args(["-i", "-q", "-s", &scale.to_string(), "postgres"]))?;
        Ok(cluster)
    }

    fn configure(&self, fsync: &str) -> Result {
        let file = self.data().join("postgresql.conf");
        let settings = format!(
            "listen_addresses = ''\nport = {PORT}\nunix_socket_directories = '{}'\nfsync = {fsync}\n\
             shared_buffers = 512MB\nmax_wal_size = 8GB\ncheckpoint_timeout = 1h\n\
             archive_mode = on\narchive_command = 'true'\nautovacuum = off\n",
            self.folder.display()
        );
        let before = sh::read(&file)?;
        sh::write(&file, before + &settings)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of the server's programs, run as the server's user.
    fn program(&self, name: &str) -> Command {
        let program = Path::new(PROGRAMS).join(name);
        let mut command = if is_root().unwrap_or(false) {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.folder);
        command
    }

    fn client(&self, name: &str) -> Command {
        let mut command = self.program(name);
        command.arg("-h").arg(&self.folder).args(["-p", &PORT.to_string(), "-U", "postgres"]);
        command
    }

    fn sql(&self, sql: &str) -> Result<String> {
        Ok(sh::output(self.client("psql").args(["-XAtc", sql, "postgres"]))?.trim().to_owned())
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}&port={PORT}", self.folder.display())
    }

    pub(super) fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let system = self.sql("SELECT system_identifier FROM pg_control_system()").unwrap_or_default();
        vec![
            ("DATA", self.data()),
            ("SOCKET", self.folder.clone()),
            ("PORT", PORT.to_string().into()),
            ("SYSTEM", system.into()),
        ]
    }

    pub(super) fn version(&self) -> Result<String> {
        self.sql("SHOW server_version")
    }

    pub(super) fn size(&self) -> Result<String> {
        self.sql("SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database")
    }

    pub(super) fn checkpoint(&self) -> Result {
        self.sql("CHECKPOINT").map(|_| ())
    }

    /// Does all that the server would do in the background otherwise, and changes pages by.
    pub(super) fn settle(&self) -> Result {
        sh::run(self.client("psql").args(["-XAtqc", "VACUUM ANALYZE", "postgres"]))?;
        self.checkpoint()
    }

    fn pgbench(&self, how: &[&str]) -> Command {
        let mut command = self.client("pgbench");
        command.args(["-n", "-c", "4", "-j", "2"]).args(how).arg("postgres");
        command
    }

    /// Runs `pgbench` with 4 clients to its end. Gives transactions per second.
    pub(super) fn load(&self, how: &[&str]) -> Result<f64> {
        rate(&sh::output(&mut self.pgbench(how))?)
    }

    /// As [`Cluster::load`], in the background.
    pub(super) fn start_load(&self, how: &[&str]) -> Result<Load> {
        let log = self.folder.join("pgbench.log");
        let file = fs::File::create(&log).map_err(|error| error.to_string())?;
        let child = self.pgbench(how).stdout(file).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("cannot start pgbench: {error}"))?;
        Ok(Load { child: child.into(), log })
    }

    /// Works until so many segments wait for being archived. Gives their names.
    pub(super) fn waiting_segments(&self, count: usize) -> Result<Vec<String>> {
        self.sql("ALTER SYSTEM SET archive_command = 'false'")?;
        self.sql("SELECT pg_reload_conf()")?;
        loop {
            let folder = self.data().join("pg_wal/archive_status");
            let entries = fs::read_dir(&folder).map_err(|error| error.to_string())?;
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            let mut ready: Vec<String> = names
                .filter_map(|name| name.strip_suffix(".ready").map(str::to_owned))
                .filter(|name| name.len() == 24)
                .collect();
            ready.sort();
            if ready.len() >= count {
                ready.truncate(count);
                return Ok(ready);
            }
            self.load(&["-T", "3"])?;
        }
    }

    /// Lets the server forget the segments that waited.
    pub(super) fn archive_away(&self) -> Result {
        self.sql("ALTER SYSTEM RESET archive_command")?;
        self.sql("SELECT pg_reload_conf()")?;
        self.sql("SELECT pg_switch_wal()").map(|_| ())
    }

    /// What was fetched must be what was pushed.
    pub(super) fn compare_segments(&self, names: &[String], fetched: &Path) -> Result {
        for name in names {
            let ours =
                fs::read(fetched.join(name)).map_err(|error| format!("{name} was not fetched: {error}"))?;
            let servers =
                fs::read(self.data().join("pg_wal").join(name)).map_err(|error| error.to_string())?;
            if ours != servers {
                return Err(format!("{name} came back with other contents in {}", fetched.display()));
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]).stdout(Stdio::null());
        if let Err(error) = sh::run(&mut stop) {
            println!("bench: the server was not stopped: {error}");
        }
    }
}

impl Load {
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.child.borrow_mut().try_wait(), Ok(None))
    }

    /// Waits for the end.
    pub(super) fn transactions_per_second(&self) -> Result<f64> {
        self.child.borrow_mut().wait().map_err(|error| error.to_string())?;
        rate(&sh::read(&self.log)?)
    }
}

/// The number in the line `tps = 1234.5 (without initial connection time)`.
fn rate(text: &str) -> Result<f64> {
    let number = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    number.ok_or_else(|| format!("pgbench printed no rate: {text}"))
}

fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let text = "latency average = 1.2 ms\ntps = 3210.500000 (without initial connection time)\n";
        assert_eq!(rate(text), Ok(3210.5));
        assert!(rate("pgbench: error").is_err());
    }
}
