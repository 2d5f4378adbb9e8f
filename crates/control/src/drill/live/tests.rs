use super::*;
use crate::probe::tests::{answer, with_body};
use retoma_core::manifest::{Origin, parse};

/// A service in `root/srv` with `models` and a repository beside it.
fn manifest(root: &Path, start: &str) -> Manifest {
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\nhealth = \"http://127.0.0.1:1/\"\nstart = [\"run\", \"{start}\"]\n\
         [[repository]]\nname = \"r\"\nurl = \"file://{0}/repository\"\npassword = \"env:P\"\n\
         [[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"models\"\n",
        root.display()
    );
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: root.join("srv") };
    parse(&text, &origin).unwrap_or_else(|problems| panic!("{problems:?}"))
}

#[test]
fn what_is_live_holds_something_live_or_lies_in_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("srv/models")).unwrap();
    std::fs::create_dir_all(root.join("repository")).unwrap();
    std::os::unix::fs::symlink(root.join("srv/models"), root.join("link")).unwrap();
    let _listening = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let manifest = manifest(root, "x");
    for live in [
        ".",
        "srv",
        "srv/models",
        "srv/models/a/b",
        "link",
        "link/a",
        "srv/../link",
        "repository",
        "repository/a",
        "socket",
    ] {
        let refused = refuse_live(&root.join(live), &manifest).map_err(|error| error.code());
        assert_eq!(refused, Err(codes::TARGET_IS_LIVE), "{live}");
    }
    for free in ["scratch", "srv/other", "srv/models2", "repository2"] {
        assert!(refuse_live(&root.join(free), &manifest).is_ok(), "{free}");
    }
}

#[test]
fn a_command_may_name_no_live_path_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let names = |argument: String| refuse_live_arguments(&manifest(root, &argument));
    for live in ["srv", "srv/models", "srv/retoma.toml", "srv/models/m"] {
        let argument = format!("--file={}", root.join(live).display());
        assert_eq!(names(argument).map_err(|error| error.code()), Err(codes::DRILL_UNSUITED), "{live}");
    }
    for free in ["models", "--port", "$RETOMA_ROOT/srv"] {
        assert!(names(free.to_owned()).is_ok(), "{free}");
    }
}

#[test]
fn a_repository_is_live_at_the_very_path_that_the_manifest_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = manifest(folder.path(), "x");
    for name in ["a b", "a%20b", "100%"] {
        manifest.repositories[0].url = format!("file://{}/{name}", folder.path().display());
        let inside = folder.path().join(name).join("scratch");
        let refused = refuse_live(&inside, &manifest).map_err(|error| error.code());
        assert_eq!(refused, Err(codes::TARGET_IS_LIVE), "{name}");
    }
    manifest.repositories[0].url = "s3://bucket/prefix".to_owned();
    refuse_live(&folder.path().join("a b"), &manifest).unwrap();
}

#[test]
fn a_port_on_which_anybody_answers_is_live() {
    let (url, _requests) = answer(vec![with_body("404 Not Found", "")]);
    assert_eq!(refuse_answering(&url).unwrap_err().code(), codes::TARGET_IS_LIVE);
    let free = format!("http://127.0.0.1:{}/", super::super::port::free().unwrap());
    refuse_answering(&free).unwrap();
}
