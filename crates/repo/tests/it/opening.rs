//! Opening and making a repository: what counts as one, which keys open it, and what stands in the way of a new one.

use bytes::Bytes;
use retoma_core::error::codes;
use retoma_core::{Code, ErrorKind, Secret};
use retoma_repo::format::recipient::{LIMIT_BYTES, Recipient, Sealed, Wrapping};
use retoma_repo::format::time::Time;
use retoma_repo::handover::{HandedKey, pack, unpack};
use retoma_repo::id::RecipientId;
use retoma_repo::store::{BlockingStore, Key, ObjectStore, PutMode, Store, Verb};
use retoma_repo::{Folder, KeyId, Repository, recipients};
use retoma_testkit::{Fault, FaultyStore, Rule, When};
use std::sync::Arc;

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn memory() -> (Arc<FaultyStore>, BlockingStore) {
    let faulty = Arc::new(FaultyStore::new(Arc::new(ObjectStore::memory())));
    let store = BlockingStore::new(faulty.clone() as Arc<dyn Store>).unwrap();
    (faulty, store)
}

fn put(store: &BlockingStore, name: &str, bytes: impl Into<Bytes>) {
    store.put(&key(name), bytes.into(), PutMode::Overwrite).unwrap();
}

fn code(opened: retoma_repo::Result<Repository>) -> Option<(ErrorKind, Code)> {
    opened.err().map(|error| (error.kind(), error.code()))
}

/// A new config over old data would make them unreadable for good.
#[test]
fn where_data_are_left_without_their_config_nothing_is_opened_and_nothing_is_made() {
    for folder in ["snapshots", "index", "data/ab", "marks", "evidence/host", "wal/db"] {
        let (_, store) = memory();
        put(&store, &format!("{folder}/left"), "x");
        let lost = Some((ErrorKind::Corrupt, codes::CONFIG_MISSING));
        assert_eq!(code(Repository::open(store.clone(), &secret("a"))), lost, "{folder}");
        assert_eq!(code(Repository::init(store.clone(), &secret("a"))), lost, "{folder}");
        assert_eq!(
            code(Repository::open_or_init(store.clone(), &secret("a")).map(|opened| opened.0)),
            lost,
            "{folder}"
        );
        assert_eq!(store.list("").unwrap().len(), 1, "nothing was written");
    }
    let none = Some((ErrorKind::NotFound, codes::NO_REPOSITORY));
    for harmless in ["locks/left", "recipients/left", "other/file", "readme"] {
        let (_, store) = memory();
        put(&store, harmless, "x");
        assert_eq!(code(Repository::open(store, &secret("a"))), none, "{harmless}");
    }
}

#[test]
fn a_store_that_does_not_answer_is_no_empty_one() {
    for (verb, name) in [(Verb::Get, "config"), (Verb::List, "snapshots")] {
        let (faulty, store) = memory();
        faulty.add(Rule::new(verb, name, When::Always, Fault::Error(ErrorKind::Unavailable)));
        let away = Repository::open_or_init(store, &secret("a")).unwrap_err();
        assert_eq!(away.kind(), ErrorKind::Unavailable, "{name}");
        assert_eq!(faulty.calls(Verb::Put), 0, "no repository is made beside one that is away");
    }
}

#[test]
fn a_key_that_was_handed_over_opens_its_own_repository_as_long_as_its_file_is_there() {
    let (faulty, store) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    let handed = |repository: &Repository| HandedKey::of(repository);
    let opened = Repository::open_with(store.clone(), &[handed(&repository)]).unwrap().unwrap();
    assert_eq!((opened.config(), opened.key_id()), (repository.config(), repository.key_id()));
    assert!(Repository::open_with(store.clone(), &[]).unwrap().is_none());

    let (_, elsewhere) = memory();
    let other = Repository::init(elsewhere.clone(), &secret("a")).unwrap();
    assert!(Repository::open_with(store.clone(), &[handed(&other)]).unwrap().is_none());
    assert!(Repository::open_with(store.clone(), &[handed(&other), handed(&repository)]).unwrap().is_some());
    assert!(Repository::open_with(memory().1, &[handed(&repository)]).unwrap().is_none(), "no repository");

    // A key that says it is another repository's does not open this one.
    let mut bytes = pack(&[handed(&repository)]).to_vec();
    let id = repository.config().id.0;
    let at = bytes.windows(32).position(|part| part == id).unwrap();
    bytes[at..at + 32].copy_from_slice(&other.config().id.0);
    assert!(Repository::open_with(store.clone(), &unpack(&bytes)).unwrap().is_none());

    let file = Folder::Keys.key(&repository.key_id().to_hex()).unwrap();
    faulty.add(Rule::new(Verb::Head, file.as_str(), When::Always, Fault::Error(ErrorKind::Unavailable)));
    let away = Repository::open_with(store.clone(), &[handed(&repository)]).unwrap_err();
    assert_eq!(away.kind(), ErrorKind::Unavailable, "whether it was taken away is not known");
    faulty.clear_rules();
    store.delete(&file).unwrap();
    assert!(Repository::open_with(store, &[handed(&repository)]).unwrap().is_none(), "it was taken away");
}

#[test]
fn a_damaged_key_file_is_passed_over_while_another_one_opens_and_told_where_none_does() {
    let (_, store) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    let own = Folder::Keys.key(&repository.key_id().to_hex()).unwrap();
    let file = store.get(&own).unwrap();
    put(&store, &format!("keys/{}", "0".repeat(64)), "damaged");
    put(&store, &format!("keys/{}", "f".repeat(64)), file.clone());
    Repository::open(store.clone(), &secret("a")).unwrap();
    store.delete(&own).unwrap();
    let error = Repository::open(store.clone(), &secret("a")).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Corrupt, codes::HASH_MISMATCH),
        "and not: wrong password"
    );
    for (id, _) in repository.list(Folder::Keys).unwrap() {
        store.delete(&Folder::Keys.key(&KeyId(id).to_hex()).unwrap()).unwrap();
    }
    assert_eq!(
        code(Repository::open(store.clone(), &secret("a"))),
        Some((ErrorKind::Unauthorized, codes::WRONG_KEY))
    );
    store.put(&own, file, PutMode::Create).unwrap();
    assert_eq!(
        code(Repository::open(store, &secret("b"))),
        Some((ErrorKind::Unauthorized, codes::WRONG_KEY))
    );
}

/// Somebody puts another repository's config there: the same password opens the keys, and they open nothing else.
#[test]
fn a_config_of_another_repository_is_not_opened() {
    let (_, store) = memory();
    Repository::init(store.clone(), &secret("a")).unwrap();
    let (_, elsewhere) = memory();
    Repository::init(elsewhere.clone(), &secret("a")).unwrap();
    let (own, foreign) = (store.get(&key("config")).unwrap(), elsewhere.get(&key("config")).unwrap());
    put(&store, "config", foreign);
    assert_eq!(
        code(Repository::open(store.clone(), &secret("a"))),
        Some((ErrorKind::Corrupt, codes::NOT_AUTHENTIC))
    );
    put(&store, "config", own.slice(..own.len() - 1));
    assert_eq!(
        code(Repository::open(store.clone(), &secret("a"))),
        Some((ErrorKind::Corrupt, codes::NOT_AUTHENTIC))
    );
    put(&store, "config", own);
    Repository::open(store, &secret("a")).unwrap();
}

/// What a killed maker of another repository left behind: a key with the same password that opens nothing here.
#[test]
fn of_several_keys_with_one_password_the_one_that_opens_the_config_counts() {
    let (_, elsewhere) = memory();
    let stray = Repository::init(elsewhere.clone(), &secret("a")).unwrap();
    let (_, store) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    let name = Folder::Keys.key(&stray.key_id().to_hex()).unwrap();
    store.put(&name, elsewhere.get(&name).unwrap(), PutMode::Create).unwrap();
    let opened = Repository::open(store, &secret("a")).unwrap();
    assert_eq!(opened.key_id(), repository.key_id());
}

#[test]
fn an_object_is_read_under_its_own_name_alone_and_the_way_out_fits_its_folder() {
    let (_, store) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    for (folder, hint) in
        [(Folder::Snapshots, "snapshots"), (Folder::Index, "retoma repair"), (Folder::Marks, "another copy")]
    {
        let id = repository.save_unpacked(folder, b"{\"a\":1}").unwrap();
        assert_eq!(repository.load_unpacked(folder, id).unwrap(), b"{\"a\":1}");
        let name = folder.key(&KeyId(id).to_hex()).unwrap();
        let sealed = store.get(&name).unwrap();
        put(&store, &format!("{}/{}", folder.name(), "1".repeat(64)), sealed.clone());
        let moved = repository.load_unpacked(folder, [0x11; 32]).unwrap_err();
        assert_eq!((moved.kind(), moved.code()), (ErrorKind::Corrupt, codes::HASH_MISMATCH));
        assert!(moved.hint().unwrap().contains(hint), "{:?}", moved.hint());
        put(&store, name.as_str(), sealed.slice(1..));
        assert_eq!(repository.load_unpacked(folder, id).unwrap_err().code(), codes::HASH_MISMATCH);
        assert_eq!(repository.load_unpacked(folder, [9; 32]).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(Folder::Data.key(&"ab".repeat(32)).unwrap().as_str(), format!("data/ab/{}", "ab".repeat(32)));
    Folder::Data.key("").unwrap_err();
    Folder::Index.key("../config").unwrap_err();
}

fn recipient(number: u8, seconds: i64, wrapping: Wrapping) -> Recipient {
    Recipient { key: KeyId([number; 32]), created: Time::from_unix(seconds, 0), wrapping }
}

fn save(store: &BlockingStore, recipient: &Recipient) -> RecipientId {
    let id = recipient.id().unwrap();
    put(store, &format!("recipients/{}", id.to_hex()), recipient.to_json().unwrap());
    id
}

#[test]
fn ways_in_are_told_by_age_and_what_is_damaged_or_too_large_hides_no_other() {
    let (faulty, store) = memory();
    let sealed =
        Sealed { mount: "transit".to_owned(), name: "r".to_owned(), ciphertext: "vault:v1:x".to_owned() };
    let young = save(&store, &recipient(1, 2_000, Wrapping::KeyFile));
    let old = save(&store, &recipient(2, 1_000, Wrapping::Transit(sealed.clone())));
    put(&store, &format!("recipients/{}", "3".repeat(64)), "damaged");
    put(
        &store,
        &format!("recipients/{}", "4".repeat(64)),
        recipient(1, 0, Wrapping::KeyFile).to_json().unwrap(),
    );
    put(&store, "recipients/note", "no id at all");
    let large = format!("recipients/{}", "5".repeat(64));
    put(&store, &large, vec![b' '; usize::try_from(LIMIT_BYTES).unwrap() + 1]);
    let known = recipients::read(&store).unwrap();
    assert_eq!(known.recipients.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [old, young]);
    assert_eq!(known.damaged.len(), 3);
    assert_eq!(known.of(KeyId([1; 32])), Some(&Wrapping::KeyFile));
    assert_eq!(known.of(KeyId([7; 32])), None);
    assert_eq!(known.sealed().collect::<Vec<_>>(), [&sealed]);
    assert!(
        !faulty.log().iter().any(|call| call.verb == Verb::Get && call.name == large),
        "it is not even fetched"
    );
    assert_eq!(recipients::read_one(&store, young).unwrap().key, KeyId([1; 32]));
    assert_eq!(recipients::read_one(&store, RecipientId([9; 32])).unwrap_err().kind(), ErrorKind::NotFound);
    // A store that does not answer is not one without ways in.
    faulty.add(Rule::new(Verb::Get, "recipients/*", When::Always, Fault::Error(ErrorKind::Unavailable)));
    assert_eq!(recipients::read(&store).unwrap_err().kind(), ErrorKind::Unavailable);
}

/// A key file whose password nobody has, and nobody knows of, must never come into being.
#[test]
fn a_way_in_is_written_before_its_key_and_the_key_opens() {
    let (faulty, store) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    let before = faulty.log().len();
    let password = recipients::new_password().unwrap();
    assert_eq!(password.expose().len(), 64);
    let id = recipients::add(&repository, &password, Wrapping::KeyFile).unwrap();
    let log = faulty.log();
    let puts: Vec<&str> =
        log[before..].iter().filter(|call| call.verb == Verb::Put).map(|call| &*call.name).collect();
    assert_eq!(puts.len(), 2);
    assert!(puts[0].starts_with("recipients/") && puts[1] == format!("keys/{}", id.to_hex()), "{puts:?}");
    assert_eq!(Repository::open(store.clone(), &password).unwrap().key_id(), id);
    faulty.add(Rule::new(Verb::Put, "recipients/*", When::Always, Fault::Error(ErrorKind::Unavailable)));
    let keys = repository.keys().unwrap().len();
    recipients::add(&repository, &password, Wrapping::KeyFile).unwrap_err();
    assert_eq!(repository.keys().unwrap().len(), keys, "no key without it");
    assert_ne!(recipients::new_password().unwrap().expose(), password.expose());
}

/// Who opens with random bits does not wait for the derivations of passwords that people chose.
#[test]
fn keys_of_random_passwords_are_tried_first() {
    let (_, store) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    let password = recipients::new_password().unwrap();
    // As the names fall, the dear key of the same password comes first in the list.
    let (cheap, dear) = loop {
        let cheap = recipients::add(&repository, &password, Wrapping::KeyFile).unwrap();
        let dear = repository.add_key(&password).unwrap();
        if dear < cheap {
            break (cheap, dear);
        }
        repository.remove_key(cheap).unwrap();
        repository.remove_key(dear).unwrap();
    };
    assert_eq!(Repository::open(store.clone(), &password).unwrap().key_id(), cheap);
    repository.remove_key(cheap).unwrap();
    assert_eq!(Repository::open(store.clone(), &password).unwrap().key_id(), dear);
    assert_eq!(Repository::open(store, &secret("a")).unwrap().key_id(), repository.key_id());
}

/// Keys that open, but of another repository's master key, stand in nobody's way: a killed `init` leaves such.
#[test]
fn a_key_that_opens_another_master_key_is_passed_over() {
    let (_, store) = memory();
    let (_, other) = memory();
    let repository = Repository::init(store.clone(), &secret("a")).unwrap();
    for _ in 0..3 {
        let (_, other) = memory();
        let foreign = Repository::init(other.clone(), &secret("a")).unwrap().key_id();
        let name = Folder::Keys.key(&foreign.to_hex()).unwrap();
        put(&store, name.as_str(), other.get(&name).unwrap());
    }
    assert_eq!(Repository::open(store.clone(), &secret("a")).unwrap().key_id(), repository.key_id());
    // When all that open are of others, it is the config that does not fit.
    Repository::init(other.clone(), &secret("b")).unwrap();
    put(&store, "config", other.get(&key("config")).unwrap());
    assert_eq!(code(Repository::open(store, &secret("a"))).map(|it| it.0), Some(ErrorKind::Corrupt));
}
