//! Recovery from nothing: a machine that has the servers' programs, `retoma`, one address and one password, and reaches
//! only the bucket. The service with all its stores runs there afterwards.

use crate::kit::{Home, PASSWORD, Run, tree};
use retoma_repo::store::{BlockingStore, cloud};
use retoma_testkit::{BlankMachine, PostgresServer, RedisServer, SeaweedServer, fill_redis, free_port};
use serde_json::Value;
use std::path::Path;

/// Rows that the sample service has.
const PREDICTIONS: u64 = 2_000;
/// Rows in PostgreSQL.
const ORDERS: &str = "20000";
/// What is asked of PostgreSQL, on the old machine and on the new one.
const SUMS: &str = "SELECT count(*), sum(id), md5(string_agg(what, ',' ORDER BY id)) FROM orders";
/// The name of the bucket.
const BUCKET: &str = "backups";
/// The repository that is backed up into …
const FIRST: &str = "s3://backups/shop";
/// … and its copy.
const SECOND: &str = "s3://backups/elsewhere";

/// The machine that will be lost, and the bucket, which stays.
struct Shop {
    home: Home,
    database: PostgresServer,
    cache: RedisServer,
    bucket: SeaweedServer,
    port: u16,
}

impl Shop {
    /// With everything in it, backed up; `None` where a server is not installed.
    fn open() -> Option<Self> {
        let (database, cache) = (PostgresServer::start()?, RedisServer::start()?);
        let bucket = SeaweedServer::start()?;
        bucket.make_bucket(BUCKET);
        let home = Home::empty();
        let rows = PREDICTIONS.to_string();
        let srv = home.text_path("srv");
        let seed = ["__marabet", "seed", "--root", &srv, "--rows", &rows];
        home.run(&[&seed[..], &["--model-bytes", "200000", "--log-bytes", "50000"]].concat()).expect(0);
        database.psql(&format!(
            "CREATE TABLE orders AS SELECT n AS id, 'order ' || n AS what FROM generate_series(1, {ORDERS}) AS n"
        ));
        fill_redis(&cache);
        home.write_private("password", PASSWORD);
        let shop = Self { home, database, cache, bucket, port: free_port() };
        shop.home.write("srv/bin/start.sh", shop.start().as_bytes());
        shop.home.write("srv/retoma.toml", shop.manifest().as_bytes());
        for verb in ["backup", "copy"] {
            let mut command = shop.home.command();
            command.envs(shop.bucket.variables()).args([verb, "-f", "srv/retoma.toml"]);
            Run::new(format!("retoma {verb}"), &command.output().unwrap()).expect(0);
        }
        Some(shop)
    }

    /// What an operator's script does on the new machine: both servers on what came back, and the program.
    fn start(&self) -> String {
        let (database, cache) = (self.database.data_dir(), self.cache.data_dir());
        format!(
            "set -e\ninstall -d -o postgres /run/postgresql\n\
             runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_ctl start -w -s -D '{}' -l /run/postgresql/log \\\n    \
             -o '-p 5432 -k /run/postgresql'\n\
             redis-server --daemonize yes --bind 127.0.0.1 --port 6379 --save '' --dir '{}' > /dev/null\n\
             exec retoma __marabet serve --root . --port {}\n",
            database.display(),
            cache.display(),
            self.port
        )
    }

    fn manifest(&self) -> String {
        let (port, home) = (self.port, &self.home);
        format!(
            r#"version = 1

[service]
name = "shop"
health = "http://127.0.0.1:{port}/healthz"
start = ["sh", "bin/start.sh"]

[[service.check]]
url = "http://127.0.0.1:{port}/predictions/count"
expect_body = "{PREDICTIONS}"

[[repository]]
name = "far"
url = "{FIRST}"
password = "file:{password}"

[[repository]]
name = "second"
url = "{SECOND}"
password = "file:{password}"
copy_of = "far"

[[component]]
name = "orders"
kind = "postgres"
tier = "critical"
url = "{database}"

[[component]]
name = "predictions"
kind = "sqlite"
tier = "critical"
path = "data/marabet.sqlite"

[[component]]
name = "cache"
kind = "redis"
tier = "high"
url = "{cache}"

[[component]]
name = "programs"
kind = "files"
tier = "high"
path = "bin"
{folders}"#,
            folders = retoma_testkit::manifest::FOLDERS,
            password = home.text_path("password"),
            database = self.database.socket_url(),
            cache = self.cache.url(),
        )
    }

    /// Everything that is not in the bucket is gone; gives what it was, and the bucket.
    fn burn(self) -> Lost {
        let tables = self.database.psql(SUMS);
        let keys = self.cache.cli(&["DBSIZE"]);
        let srv = self.home.path("srv");
        let lost = Lost {
            tables,
            keys,
            folders: ["models", "config", "bin"].map(|name| (name, digests(&srv.join(name)))),
            database: self.database.data_dir().display().to_string(),
            srv: srv.display().to_string(),
            port: self.port,
            bucket: self.bucket,
        };
        drop((self.database, self.cache, self.home));
        assert!(!Path::new(&lost.srv).exists() && !Path::new(&lost.database).exists());
        lost
    }
}

/// What a machine was.
struct Lost {
    tables: String,
    keys: String,
    folders: [(&'static str, String); 3],
    database: String,
    srv: String,
    port: u16,
    bucket: SeaweedServer,
}

/// `sha256sum` of each file below a folder, as the blank machine prints it.
fn digests(folder: &Path) -> String {
    let output =
        std::process::Command::new("sh").args(["-ec", DIGESTS, "digests"]).arg(folder).output().unwrap();
    assert!(output.status.success() && !tree(folder).is_empty());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

const DIGESTS: &str = "cd \"$1\"; find . -type f | LC_ALL=C sort | xargs sha256sum";

impl Lost {
    /// What is on the machine is what was lost.
    fn is_back_on(&self, machine: &BlankMachine) {
        let psql = format!("runuser -u postgres -- psql -X -At -h /run/postgresql -c \"{SUMS}\"");
        assert_eq!(machine.sh(&psql), self.tables);
        machine.sh("runuser -u postgres -- psql -X -q -h /run/postgresql -c \"INSERT INTO orders VALUES (0, 'new')\"");
        assert_eq!(machine.sh("redis-cli DBSIZE"), self.keys);
        for (name, digests) in &self.folders {
            let script = format!("set -- '{}/{name}'; {DIGESTS}", self.srv);
            assert_eq!(&machine.sh(&script), digests, "{name}");
        }
        let owner = machine.sh(&format!("stat -c '%u %U' '{0}' '{0}/PG_VERSION'", self.database));
        let expected = format!("{} postgres", BlankMachine::POSTGRES);
        assert_eq!(owner, format!("{expected}\n{expected}"), "the names count, not the numbers");
    }
}

fn steps(document: &Value) -> f64 {
    let steps = document["waterfall"].as_array().unwrap_or_else(|| panic!("{document:#}"));
    steps.iter().map(|step| step["duration_seconds"].as_f64().unwrap()).sum()
}

impl Lost {
    /// Recovers from these addresses, and looks whether all is there and answers.
    fn comes_back_on(&self, machine: &BlankMachine, urls: &[&str]) -> Value {
        let document = self.recover_on(machine, urls).expect(0).document();
        assert_eq!(document["passed"], true, "{document:#}");
        let components = document["components"].as_array().unwrap();
        let names: Vec<&str> = components.iter().map(|it| it["component"].as_str().unwrap()).collect();
        assert_eq!(names[..2], ["orders", "predictions"], "in the order of the tiers: {names:?}");
        assert_eq!(names.len(), 6);
        assert!(steps(&document) > 0.0);
        self.is_back_on(machine);
        let count = machine.sh(&format!(
            "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(\"127.0.0.1:{}\") or die; \
             print $s \"GET /predictions/count HTTP/1.0\\r\\n\\r\\n\"; print <$s>'",
            self.port
        ));
        assert!(count.contains("200 OK") && count.contains(&PREDICTIONS.to_string()), "{count}");
        document
    }

    fn recover_on(&self, machine: &BlankMachine, urls: &[&str]) -> Run {
        let mut command = machine.command("retoma");
        command.args(["recover", "--in-place", "--yes", "--json"]).envs(self.bucket.variables());
        for url in urls {
            command.args(["--repository-url", url, "--password-file", "/etc/password"]);
        }
        Run::new("retoma recover".to_owned(), &command.output().unwrap())
    }

    /// Deletes three of ten packs of the first repository.
    fn delete_packs(&self) -> usize {
        let variables = self.bucket.variables();
        let store = cloud::open_with(&FIRST.parse().unwrap(), &variables).unwrap();
        let store = BlockingStore::new(store).unwrap();
        let mut packs = store.list("data").unwrap();
        packs.sort_by(|a, b| a.key.cmp(&b.key));
        let lost: Vec<_> = packs.iter().enumerate().filter(|(at, _)| at % 10 < 3).collect();
        for (_, pack) in &lost {
            store.delete(&pack.key).unwrap();
        }
        lost.len()
    }
}

/// A blank machine that reaches the bucket and has the password, and what was lost; `None` where one cannot be had.
fn after_the_fire() -> Option<(BlankMachine, Lost)> {
    let machine = BlankMachine::start(Path::new(env!("CARGO_BIN_EXE_retoma")))?;
    let lost = Shop::open()?.burn();
    machine.reach(lost.bucket.port());
    machine.write("/etc/password", PASSWORD);
    Some((machine, lost))
}

#[test]
fn a_blank_machine_with_an_address_and_a_password_runs_the_service() {
    let Some((machine, lost)) = after_the_fire() else { return };
    let document = lost.comes_back_on(&machine, &[FIRST]);
    assert_eq!(document["read_from"]["copies"], serde_json::json!([]));
}

#[test]
fn what_the_first_repository_has_lost_comes_from_the_second() {
    let Some((machine, lost)) = after_the_fire() else { return };
    assert!(lost.delete_packs() >= 1);
    let alone = lost.recover_on(&machine, &[FIRST]);
    assert!(alone.code != Some(0) && !alone.text().is_empty(), "{}", alone.text());
    let document = lost.comes_back_on(&machine, &[FIRST, SECOND]);
    assert!(document["read_from"].to_string().contains("elsewhere"), "{document:#}");
}
