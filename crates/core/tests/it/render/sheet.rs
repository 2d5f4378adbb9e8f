use retoma_core::drill::Seconds;
use retoma_core::manifest::{Manifest, Origin, parse};
use retoma_core::render::Language;
use retoma_core::render::sheet::{ComponentFacts, Facts, Measured, page};

pub(super) const SHOP: &str = r#"
version = 1

[service]
name = "shop"
health = "http://127.0.0.1:8080/healthz"

[[repository]]
name = "far"
url = "s3://backups/shop"
password = "file:password"

[[repository]]
name = "disk"
url = "file:///mnt/back up"
password = "env:SHOP_PASSWORD"

[[component]]
name = "pictures"
kind = "files"
tier = "low"
path = "pictures"

[[component]]
name = "orders"
kind = "postgres"
tier = "critical"
url = "postgres://shop@/shop"

[component.wal]
mode = "stream"
"#;

pub(super) fn manifest(text: &str) -> Manifest {
    parse(text, &Origin { file_name: "retoma.toml".into(), dir: "/srv/shop".into() }).unwrap()
}

fn facts() -> Facts {
    let time = |text: &str| text.parse().unwrap();
    let orders = ComponentFacts {
        component: "orders".to_owned(),
        snapshot: Some(time("2026-11-20T03:04:05Z")),
        data_bytes: Some(3 << 30),
        measured: Some(Measured { time: time("2026-11-15T00:00:00Z"), rto: Seconds::from_secs(94) }),
    };
    Facts { version: "1.2.3".to_owned(), components: vec![orders] }
}

#[test]
fn a_sheet_in_english() {
    insta::assert_snapshot!(page(&manifest(SHOP), &facts(), Language::English));
}

#[test]
fn a_sheet_in_portuguese() {
    insta::assert_snapshot!(page(&manifest(SHOP), &facts(), Language::Portuguese));
}

/// Every command that recovers names the first repository and asks for no other secret than the one in the file.
#[test]
fn the_commands_are_those_of_the_first_repository() {
    let with_disk_first = {
        let mut manifest = manifest(SHOP);
        manifest.repositories.reverse();
        manifest
    };
    let far = page(&manifest(SHOP), &facts(), Language::English);
    let disk = page(&with_disk_first, &facts(), Language::English);
    let command = |address: &str| {
        format!(
            "<pre>retoma recover --repository-url {address} --password-file ~/retoma-password --in-place</pre>"
        )
    };
    assert!(far.contains(&command("s3://backups/shop")) && far.contains("AWS_SECRET_ACCESS_KEY"), "{far}");
    assert!(
        disk.contains(&command("file:///mnt/back%20up")) && !disk.contains("AWS_SECRET_ACCESS_KEY"),
        "{disk}"
    );
    for page in [far, disk] {
        assert!(
            !page.contains("SHOP_PASSWORD") && !page.contains("file:password"),
            "where secrets are is not for paper"
        );
    }
}

#[test]
fn what_comes_back_first_stands_first_and_what_is_unknown_is_not_invented() {
    let page = page(&manifest(SHOP), &facts(), Language::English);
    let row = |name: &str| page.find(&format!("<td data-head=\"component\">{name}</td>")).unwrap();
    assert!(row("orders") < row("pictures"));
    let pictures = &page[row("pictures")..];
    let pictures = &pictures[..pictures.find("</tr>").unwrap()];
    assert_eq!(pictures.matches(">never<").count(), 2, "{pictures}");
    assert!(pictures.contains(">–<"), "{pictures}");
}

#[test]
fn nothing_from_the_manifest_becomes_markup() {
    let text = SHOP.replace("http://127.0.0.1:8080/healthz", "http://127.0.0.1:8080/<script>");
    for language in Language::ALL {
        let page = page(&manifest(&text), &facts(), language);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    }
}
