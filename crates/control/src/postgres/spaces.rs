//! Where the tablespaces of a restored server go, and how it finds them there.
//!
//! The links of a data directory, and the `tablespace_map` by which a server makes them anew, lead to the folders of the
//! original, which may be in use. So a restore leaves both out ([`leave_out`]), and [`link`] writes them when the tablespaces
//! are in their new places: a server that is started on what a killed restore left finds no tablespace, and not the original's.

use crate::durable;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::restore;
use retoma_sources::postgres::{PostgresFacts, Tablespace};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How a server calls the list of its tablespaces.
const MAP: &str = "tablespace_map";

/// A tablespace, and the folder that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedSpace {
    /// The tablespace.
    pub space: Tablespace,
    /// Where its contents go.
    pub to: PathBuf,
}

impl PlacedSpace {
    /// How its contents are restored; with `delete_extra`, what is not in the snapshot is removed from its folder.
    pub fn options(&self, delete_extra: bool) -> restore::Options {
        let from = self.space.location.clone().into_bytes();
        restore::Options {
            paths: vec![from.clone()],
            strip: Some(from.clone()),
            root_metadata: true,
            delete_extra,
            whole: vec![from],
            ..restore::Options::default()
        }
    }
}

/// A folder in `below` for each tablespace, for a data directory at `data`. They are absolute paths, and nothing is made.
///
/// # Errors
/// `Conflict` with `R0502` for a folder that is in the original's folders or holds one of them, or that the data directory is
/// in or holds.
pub fn place(facts: &PostgresFacts, below: &Path, data: &Path) -> Result<Vec<PlacedSpace>> {
    let originals = facts.tablespaces.iter().map(|space| Path::new(&space.location));
    let originals: Vec<PathBuf> =
        originals.chain([Path::new(&facts.server.data_directory)]).map(resolved).collect();
    let target = resolved(data);
    let placed = |space: &Tablespace| {
        let to = below.join(folder_name(space));
        let real = resolved(&to);
        let touches = |other: &Path| real.starts_with(other) || other.starts_with(&real);
        let why = if touches(&target) {
            format!("the data directory `{}`", data.display())
        } else if let Some(original) = originals.iter().find(|original| touches(original)) {
            format!("the original server's `{}`", original.display())
        } else {
            return Ok(PlacedSpace { space: space.clone(), to });
        };
        let message =
            format!("tablespace `{}` would go to `{}`, which touches {why}", space.name, to.display());
        Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message).with_hint(
            "name a folder for tablespaces that has nothing to do with either; `retoma recover --in-place` brings a server back to \
             where it was",
        ))
    };
    facts.tablespaces.iter().map(placed).collect()
}

/// That nothing lies in their folders yet: what is there already would be taken for the server's.
///
/// # Errors
/// `Conflict` with `R0502`; what the file system says.
pub fn check_empty(placed: &[PlacedSpace]) -> Result<()> {
    for PlacedSpace { space, to } in placed {
        match fs::read_dir(to).map(|mut entries| entries.next()) {
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(to.display(), error)),
            Ok(Some(_)) => {
                let message =
                    format!("`{}` is not empty, and would get tablespace `{}`", to.display(), space.name);
                return Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message).with_hint(
                    "name another folder, or restore with `--delete`, which removes what is not in the snapshot",
                ));
            }
        }
    }
    Ok(())
}

/// The tablespace's name where that can be no path and no other's number, otherwise its number.
fn folder_name(space: &Tablespace) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = &space.name;
    if name.chars().all(is_plain) && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.clone()
    } else {
        space.oid.to_string()
    }
}

/// The path behind all links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match there {
        // Part by part: a path that is joined with nothing would end with a slash.
        Some((part, real)) => {
            real.components().chain(path.strip_prefix(part).unwrap_or(part).components()).collect()
        }
        None => path.to_owned(),
    }
}

/// What a restore of the data directory must not lay down.
pub fn leave_out(facts: &PostgresFacts) -> Vec<Vec<u8>> {
    let data = Path::new(&facts.server.data_directory);
    let links = facts.tablespaces.iter().map(|space| data.join(link_name(space.oid)));
    let all = links.chain((!facts.tablespaces.is_empty()).then(|| data.join(MAP)));
    all.map(|path| path.as_os_str().as_bytes().to_vec()).collect()
}

/// Leads the links of the data directory `data` to where its tablespaces are, by their numbers, and says so in
/// `tablespace_map`, by which the server makes the links anew. Durable on return.
///
/// # Errors
/// What the file system says.
pub fn link<'a>(data: &Path, spaces: impl Iterator<Item = (u32, &'a Path)>) -> Result<()> {
    let mut map = String::new();
    for (oid, target) in spaces {
        lead(data, oid, target)?;
        let shown = target.to_string_lossy();
        // As the server writes it: a backslash before what would end the line.
        let escaped = shown.replace('\\', "\\\\").replace('\n', "\\\n").replace('\r', "\\\r");
        map.push_str(&format!("{oid} {escaped}\n"));
    }
    if map.is_empty() {
        return Ok(());
    }
    let path = data.join(MAP);
    let owner = fs::metadata(data).map_err(|error| Error::io(data.display(), error))?;
    durable::write(&path, map.as_bytes(), durable::PRIVATE)?;
    std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))
        .map_err(|error| Error::io(path.display(), error))
}

/// Makes the link of a tablespace anew.
///
/// # Errors
/// What the file system says.
pub(crate) fn lead(data: &Path, oid: u32, target: &Path) -> Result<()> {
    let link = data.join(link_name(oid));
    let failed = |error| Error::io(link.display(), error);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &link).map_err(failed)?;
    durable::sync_folder_of(&link)
}

fn link_name(oid: u32) -> String {
    format!("pg_tblspc/{oid}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(data: &Path, spaces: &[(u32, &str, &Path)]) -> PostgresFacts {
        let spaces: Vec<_> = spaces
            .iter()
            .map(
                |(oid, name, location)| serde_json::json!({ "oid": oid, "name": name, "location": location }),
            )
            .collect();
        let json = serde_json::json!({
            "schema": "retoma.postgres/1", "kind": "postgres", "version_num": 150_018, "catalog_version": 1, "system_identifier": 7,
            "data_directory": data, "data_checksums": true, "wal_segment_bytes": 1 << 20, "max_data_alignment": 8,
            "machine": "x86_64", "shared_preload_libraries": "", "superuser": "postgres", "timeline": 1, "start_lsn": "0/1",
            "stop_lsn": "0/2", "chunk_bytes": 1 << 14, "tablespaces": spaces, "databases": [], "bad_pages": []
        });
        PostgresFacts::from_json(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_gets_a_folder_of_its_own() {
        let (data, below) = (Path::new("/srv/data"), Path::new("/restored/spaces"));
        let at = Path::new("/fast");
        let names = ["fast", "16401", "../up", "a b", "", "\u{fc}ber"];
        let spaces: Vec<_> = (16_400..).zip(names).map(|(oid, name)| (oid, name, at)).collect();
        let placed = place(&facts(data, &spaces), below, Path::new("/restored/data")).unwrap();
        let folders: Vec<_> = placed.iter().map(|placed| placed.to.strip_prefix(below).unwrap()).collect();
        let expected = ["fast", "16401", "16402", "16403", "16404", "16405"];
        assert_eq!(folders, expected.map(Path::new));
    }

    #[test]
    fn a_folder_with_something_in_it_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let space = Tablespace { oid: 16_400, name: "fast".to_owned(), location: "/fast".to_owned() };
        let placed = [PlacedSpace { space, to: folder.path().join("fast") }];
        check_empty(&placed).unwrap();
        fs::create_dir(folder.path().join("fast")).unwrap();
        check_empty(&placed).unwrap();
        fs::create_dir(folder.path().join("fast/PG_15_202209061")).unwrap();
        assert_eq!(check_empty(&placed).unwrap_err().code(), codes::RESTORE_TARGET);
    }

    /// Neither by its name nor by a link does one get to the original's folders.
    #[test]
    fn none_goes_to_where_the_original_is_or_to_the_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (original, data) = (root.join("srv/fast"), root.join("srv/data"));
        fs::create_dir_all(&original).unwrap();
        fs::create_dir_all(root.join("free")).unwrap();
        std::os::unix::fs::symlink(root.join("srv"), root.join("link")).unwrap();
        let facts = facts(&data, &[(16_400, "fast", &original)]);
        let placed = |below: &str, target: &str| place(&facts, &root.join(below), &root.join(target));
        assert_eq!(placed("free", "new").unwrap()[0].to, root.join("free/fast"));
        for (below, target) in [
            ("srv", "new"),
            ("link", "new"),
            ("srv/fast", "new"),
            ("link/fast/deep", "new"),
            ("srv/data", "new"),
            ("new", "new"),
            ("new/deep", "new"),
            ("free", "free/fast/deep"),
        ] {
            let refused = placed(below, target).unwrap_err();
            assert_eq!(refused.code(), codes::RESTORE_TARGET, "{below} {target}");
        }
    }

    #[test]
    fn links_and_the_map_lead_to_the_new_places() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::create_dir(data.join("pg_tblspc")).unwrap();
        std::os::unix::fs::symlink("/fast", data.join("pg_tblspc/16400")).unwrap();
        let places = [(16_400, Path::new("/new/a\nb\\c")), (16_401, Path::new("/new/d"))];
        link(data, places.into_iter()).unwrap();
        for (oid, place) in places {
            assert_eq!(fs::read_link(data.join(format!("pg_tblspc/{oid}"))).unwrap(), place);
        }
        assert_eq!(fs::read_to_string(data.join(MAP)).unwrap(), "16400 /new/a\\\nb\\\\c\n16401 /new/d\n");
        let facts = facts(Path::new("/srv/data"), &[(16_400, "fast", Path::new("/fast"))]);
        let left: Vec<_> =
            leave_out(&facts).into_iter().map(|path| String::from_utf8(path).unwrap()).collect();
        assert_eq!(left, ["/srv/data/pg_tblspc/16400", "/srv/data/tablespace_map"]);
        // Without tablespaces there is nothing to write.
        fs::remove_file(data.join(MAP)).unwrap();
        link(data, [].into_iter()).unwrap();
        assert!(!data.join(MAP).exists());
    }
}
