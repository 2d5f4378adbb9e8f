use super::*;
use proptest::prelude::*;

fn environment() -> Environment {
    Environment { user: Some("me".into()), home: Some("/h/me".into()), ..Environment::default() }
}

fn parse(text: &str) -> Address {
    Address::parse(text, &environment()).unwrap()
}

fn password(address: &Address) -> Option<String> {
    address.password(&address.endpoints[0], address.database()).map(|secret| secret.expose().clone())
}

#[test]
fn every_part_is_read() {
    let address = parse(
        "postgres://ret%40ma:p%3A%2Fw@db.example.org:5433/my%20app?sslmode=verify-full&sslrootcert=/etc/ca.crt&\
         application_name=x&connect_timeout=3&channel_binding=require&options=-c%20geqo%3Doff",
    );
    assert_eq!(address.endpoints(), [Endpoint::Tcp { host: "db.example.org".into(), port: 5433 }]);
    assert_eq!((address.user(), address.database()), ("ret@ma", "my app"));
    assert_eq!(password(&address).as_deref(), Some("p:/w"));
    assert_eq!(address.ssl_mode(), SslMode::VerifyFull);
    assert_eq!(address.roots, Roots::Named("/etc/ca.crt".into()));
    assert_eq!(address.channel_binding, ChannelBinding::Require);
    assert_eq!(address.connect_timeout(), Duration::from_secs(3));
    assert_eq!((address.application_name(), address.options()), ("x", Some("-c geqo=off")));
}

#[test]
fn what_is_not_named_is_as_with_libpq() {
    let address = parse("postgres://");
    assert_eq!((address.user(), address.database()), ("me", "me"));
    let shown: Vec<_> = address.endpoints().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["/var/run/postgresql/.s.PGSQL.5432", "/tmp/.s.PGSQL.5432", "localhost:5432"]);
    assert_eq!((address.ssl_mode(), address.application_name()), (SslMode::Prefer, "retoma"));
    assert_eq!(address.roots, Roots::Usual("/h/me/.postgresql/root.crt".into()));
    assert_eq!(parse("postgresql://app@host").database(), "app");
    assert_eq!(parse("postgres://host").endpoints()[0].to_string(), "host:5432");
}

#[test]
fn sockets_are_named_in_both_ways() {
    let unix = [Endpoint::Unix { folder: "/run/pg".into(), port: 5555 }];
    assert_eq!(parse("postgres:///db?host=/run/pg&port=5555").endpoints(), unix);
    assert_eq!(parse("postgres://%2Frun%2Fpg:5555/db").endpoints(), unix);
    assert_eq!(unix[0].socket(), Some("/run/pg/.s.PGSQL.5555".into()));
    assert_eq!(parse("postgres://u@[::1]:1/db").endpoints()[0].to_string(), "[::1]:1");
}

#[test]
fn the_environment_fills_gaps_and_nothing_else() {
    let mut environment = environment();
    environment.variables = [("PGHOST", "other"), ("PGPORT", "7"), ("PGUSER", "u"), ("PGSSLMODE", "require")]
        .map(|(k, v)| (k, v.into()))
        .into();
    environment.password = Some(Secret::new("from-variable".into()));
    environment.pass_file = PassFile::Text(Secret::new("*:*:*:*:from-file".into()));
    let address = Address::parse("postgres://app@host/db", &environment).unwrap();
    assert_eq!(address.to_string(), "postgres://app@host:7/db");
    assert_eq!(address.ssl_mode(), SslMode::Require);
    assert_eq!(password(&address).as_deref(), Some("from-variable"));
    assert_eq!(
        password(&Address::parse("postgres://u:own@h", &environment).unwrap()).as_deref(),
        Some("own")
    );
    environment.password = None;
    assert_eq!(
        password(&Address::parse("postgres://u@h", &environment).unwrap()).as_deref(),
        Some("from-file")
    );
    environment.pass_file = PassFile::Exposed("/h/me/.pgpass".into());
    let address = Address::parse("postgres://u@h", &environment).unwrap();
    assert_eq!(password(&address), None);
    assert_eq!(address.exposed_pass_file(), Some(Path::new("/h/me/.pgpass")));
}

#[test]
fn faults_are_named_and_nothing_is_repeated() {
    let mut texts = String::new();
    for text in [
        "hunter2",
        "mysql://u:hunter2@h",
        "postgres://u:hunter2@h:0/db",
        "postgres://u:hunter2@h:70000",
        "postgres://u:hunter%2@h",
        "postgres://u:hunter2%ff@h",
        "postgres://u:hunter2%00@h",
        "postgres://u:hun ter2@h",
        "postgres://u:hunter2@a,b",
        "postgres://u:hunter2@::1",
        "postgres://u:hunter2@[::1",
        "postgres://u:hunter2@[::1]x",
        "postgres://u:hunter2@h?sslmode=allow",
        "postgres://u:hunter2@h?hunter2=1",
        "postgres://u:hunter2@h?keepalives=1",
        "postgres://u:hunter2@h?hunter2",
        "postgres://u:hunter2@h?connect_timeout=1.5",
        "postgres://u:hunter2@h?channel_binding=yes",
        "postgres://u:hunter2@h?target_session_attrs=primary",
        "postgres://u:hunter2@h?host=@abstract",
        "postgres://u:hunter2@h?sslrootcert=system&sslmode=require",
    ] {
        let error = Address::parse(text, &environment()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::POSTGRES_ADDRESS), "{text}");
        assert!(!format!("{error:?} {:?}", error.hint()).contains("hunter"), "{error:?}");
        texts.push_str(&format!("{error}\n"));
    }
    insta::assert_snapshot!(texts);
    assert!(Address::parse("postgres://h", &Environment::default()).is_err(), "no user");
}

#[test]
fn a_password_is_never_printed() {
    let address = parse("postgres://u:hunter2@h/db");
    assert!(!format!("{address:?}{address}").contains("hunter2"));
    let environment = Environment { password: Some(Secret::new("hunter2".into())), ..environment() };
    assert!(!format!("{environment:?}").contains("hunter2"));
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| format!("{encoded}%{byte:02x}"))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "postgres://[a-z0-9:@/?&=%\\[\\],.]{0,60}|.{0,60}") {
        if let Ok(address) = Address::parse(&text, &environment()) {
            prop_assert!(!address.endpoints().is_empty());
        }
    }

    #[test]
    fn encoded_parts_come_back(user in "[^\0]{1,20}", secret in "[^\0]{1,20}", database in "[^\0]{1,20}") {
        let text = format!("postgres://{}:{}@h/{}", encode(&user), encode(&secret), encode(&database));
        let address = parse(&text);
        prop_assert_eq!((address.user(), address.database()), (user.as_str(), database.as_str()));
        prop_assert_eq!(password(&address), Some(secret));
    }
}
