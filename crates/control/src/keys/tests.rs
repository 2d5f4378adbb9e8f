use super::*;
use crate::open::open_address;
use retoma_core::manifest::{Origin, parse};
use std::os::unix::fs::PermissionsExt as _;

struct Bench {
    folder: tempfile::TempDir,
    manifest: Manifest,
    repository: Repository,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().join("repository").display());
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"near\"\nurl = \"{url}\"\npassword = \"env:P\"\n\
             [[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"/m\"\n"
        );
        let manifest = parse(&text, &Origin { file_name: "m".to_owned(), dir: "/".into() }).unwrap();
        let repository = open_address(&url, &password("one"), true).unwrap().repository;
        Self { folder, manifest, repository }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make(&self, wanted: &Wanted, instead_of: Option<&str>) -> Result<Made> {
        let described = &self.manifest.repositories[0];
        let about = About { manifest: &self.manifest, described, version: "1" };
        make(&self.repository, wanted, instead_of, about)
    }

    fn opens(&self, text: &str) -> bool {
        Repository::open(self.repository.store().clone(), &password(text)).is_ok()
    }

    fn keys(&self) -> usize {
        keys::list(&self.repository).unwrap().len()
    }
}

fn password(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn shares_in(folder: PathBuf) -> Wanted {
    Wanted::Shares { threshold: 2, total: 3, folder, language: Language::English }
}

#[test]
fn a_password_is_added_beside_the_one_in_use_and_no_file_is_written() {
    let bench = Bench::new();
    let made = bench.make(&Wanted::Password(password("two")), None).unwrap();
    assert_eq!(made.files, [] as [PathBuf; 0]);
    assert_eq!((made.id, bench.keys()), (made.repository.key_id(), 2));
    assert!(bench.opens("one") && bench.opens("two"));
}

#[test]
fn a_key_file_opens_is_private_and_is_the_only_way_that_was_added() {
    let bench = Bench::new();
    let path = bench.path("key");
    let made = bench.make(&Wanted::KeyFile(path.clone()), None).unwrap();
    assert_eq!(made.files, std::slice::from_ref(&path));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(bench.opens(std::fs::read_to_string(&path).unwrap().trim_end()));
    assert_eq!(bench.keys(), 2);
}

#[test]
fn a_file_that_is_there_is_never_overwritten_and_nothing_is_added_then() {
    let bench = Bench::new();
    let path = bench.path("key");
    std::fs::write(&path, "perhaps a key that opens").unwrap();
    let error = bench.make(&Wanted::KeyFile(path.clone()), None).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::RESTORE_TARGET));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "perhaps a key that opens");
    // A link to nowhere is there too: what it leads to is not ours to make.
    std::os::unix::fs::symlink("nowhere", bench.path("link")).unwrap();
    assert_eq!(
        bench.make(&Wanted::KeyFile(bench.path("link")), None).unwrap_err().code(),
        codes::RESTORE_TARGET
    );
    // Of shares, any one that is there stops all.
    let folder = bench.path("shares");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("near-share-3-of-3.html"), "an old page").unwrap();
    assert_eq!(bench.make(&shares_in(folder.clone()), None).unwrap_err().code(), codes::RESTORE_TARGET);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(bench.keys(), 1);
}

#[test]
fn shares_are_private_open_in_any_two_and_their_pages_hold_them() {
    let bench = Bench::new();
    let folder = bench.path("new/shares");
    let made = bench.make(&shares_in(folder.clone()), None).unwrap();
    assert_eq!(made.files.len(), 6, "a text and a page for each");
    for file in &made.files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let share = |number: u8| read_share(&folder.join(format!("near-share-{number}-of-3.txt"))).unwrap();
    for pair in [[1, 2], [3, 1], [2, 3]] {
        let (opened, _) = shares::open(bench.repository.store(), &pair.map(share)).unwrap();
        assert_eq!(opened.key_id(), made.id, "{pair:?}");
    }
    assert!(shares::open(bench.repository.store(), &[share(1)]).is_err(), "one opens nothing");
    for number in 1..=3 {
        let page = std::fs::read_to_string(folder.join(format!("near-share-{number}-of-3.html"))).unwrap();
        let lines = page.split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap();
        assert_eq!(retoma_core::share::Share::parse(lines).unwrap(), share(number));
    }
}

#[test]
fn a_key_that_takes_anothers_place_leaves_that_one_no_way_in() {
    let bench = Bench::new();
    let old = bench.repository.key_id().to_hex();
    let path = bench.path("key");
    let made = bench.make(&Wanted::KeyFile(path.clone()), Some(&old[..8])).unwrap();
    assert_eq!(keys::list(&made.repository).unwrap().len(), 1);
    assert!(!bench.opens("one"));
    assert!(bench.opens(std::fs::read_to_string(&path).unwrap().trim_end()));
}

/// What surely opens nothing is taken away again: who finds it would believe that it does.
#[test]
fn files_of_a_key_that_was_not_added_do_not_stay() {
    let bench = Bench::new();
    let (path, folder) = (bench.path("key"), bench.path("shares"));
    for wanted in [Wanted::KeyFile(path.clone()), shares_in(folder.clone())] {
        let error = bench.make(&wanted, Some("0000000000000000")).unwrap_err();
        assert_ne!(error.code(), codes::RESTORE_TARGET, "{error}");
    }
    assert!(!path.exists());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(bench.opens("one"));
    assert_eq!(bench.keys(), 1);
    // So the same can be tried again.
    bench.make(&Wanted::KeyFile(path.clone()), None).unwrap();
    assert!(path.exists());
}
