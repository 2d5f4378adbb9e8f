//! Texts that come from elsewhere, in everything that is printed for people: no names of a manifest would be like these, and no
//! page relies on that.

use super::sheet::{SHOP, manifest};
use retoma_core::drill::Seconds;
use retoma_core::manifest::Manifest;
use retoma_core::render::sheet::{ComponentFacts, Facts, Measured};
use retoma_core::render::systemd::{Unit, unit};
use retoma_core::render::{Language, share, sheet};
use retoma_core::share::{SetId, Share};

const BAD: &str = "</pre><script>x</script>\" onload='y' {version}{hash}\u{1b}[2J\u{202e}\r\n1  ABCD";

/// The sample with `bad` wherever a text comes from outside.
fn named(bad: &str) -> Manifest {
    let mut manifest = manifest(SHOP);
    manifest.service.name = bad.to_owned();
    manifest.service.health = Some(bad.to_owned());
    for repository in &mut manifest.repositories {
        repository.name = bad.to_owned();
        repository.url += bad;
    }
    for component in &mut manifest.components {
        component.name = bad.to_owned();
    }
    manifest
}

fn facts(bad: &str) -> Facts {
    let time = "2026-11-20T03:04:05Z".parse().unwrap();
    let component = ComponentFacts {
        component: bad.to_owned(),
        snapshot: Some(time),
        data_bytes: Some(u64::MAX),
        measured: Some(Measured { time, rto: Seconds::from_secs(94) }),
    };
    Facts { version: bad.to_owned(), components: vec![component] }
}

fn one() -> Share {
    Share::new(SetId([0xa5; 8]), (3, 5), 2, [7; 32]).unwrap()
}

/// Sheet and share in both languages.
fn pages(bad: &str) -> Vec<String> {
    let manifest = named(bad);
    let both = Language::ALL.into_iter().flat_map(|language| {
        let share = share::page(&manifest, &manifest.repositories[0], &one(), bad, language);
        [sheet::page(&manifest, &facts(bad), language), share]
    });
    both.collect()
}

#[test]
fn no_text_from_outside_becomes_markup_or_steers_anything() {
    for page in pages(BAD) {
        for forbidden in ["<script", " onload='", "\u{1b}", "\u{202e}", "\r", "</pre>&lt;script"] {
            assert!(!page.contains(forbidden), "`{}` got through: {page}", forbidden.escape_debug());
        }
        assert!(page.contains("&lt;script&gt;x&lt;/script&gt;&quot; onload=&#39;y&#39;"), "{page}");
        assert!(page.contains("{version}{hash}"), "what looks like a place to fill in is shown as it is");
    }
}

#[test]
fn pages_have_the_same_elements_and_lines_whatever_the_texts_are() {
    let shape = |page: &String| (page.matches('<').count(), page.matches('"').count(), page.lines().count());
    let (hostile, harmless) = (pages(BAD), pages("name"));
    assert_eq!(hostile.iter().map(shape).collect::<Vec<_>>(), harmless.iter().map(shape).collect::<Vec<_>>());
}

/// Both languages are made by one function from texts with the same keys, so they differ in words alone.
#[test]
fn the_languages_have_the_same_elements_and_no_place_that_was_not_filled_in() {
    let tags = |page: &str| {
        let tags = page.split('<').skip(1).filter_map(|piece| piece.split(['>', ' ']).next());
        tags.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = pages("name");
    let (english, portuguese) = all.split_at(2);
    for (english, portuguese) in english.iter().zip(portuguese) {
        assert_eq!(tags(english), tags(portuguese));
        assert_ne!(english, portuguese);
        for page in [english, portuguese] {
            let body = page.split("</style>").nth(1).unwrap();
            assert!(!body.contains(['{', '}']), "{body}");
        }
    }
}

#[test]
fn the_pages_load_and_run_nothing() {
    for page in pages("name") {
        for forbidden in ["<script", "<link", "<img", "<iframe", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(forbidden), "`{forbidden}` in the page");
        }
        assert!(page.contains("default-src 'none'"));
    }
}

#[test]
fn a_command_on_a_page_is_one_command_whatever_the_address_is() {
    let mut manifest = manifest(SHOP);
    manifest.repositories[0].url = "s3://b/x; rm -rf / #$(id)`id`'".to_owned();
    let quoted = "--repository-url &#39;s3://b/x; rm -rf / #$(id)`id`&#39;\\&#39;&#39;&#39; ";
    for language in Language::ALL {
        let share = share::page(&manifest, &manifest.repositories[0], &one(), "1", language);
        for page in [sheet::page(&manifest, &Facts::default(), language), share] {
            assert_eq!(page.matches(quoted).count(), 2, "{page}");
            assert_eq!(page.matches("s3://b/x").count(), 2, "nowhere without quotes: {page}");
        }
    }
}

#[test]
fn the_file_of_a_share_is_read_again_whatever_the_service_is_called() {
    for bad in [BAD, "\n1  AAAA AAAA AAAA AAAA  AA", "\u{85}RETOMA-SHARE:", "name"] {
        let manifest = named(bad);
        let text = share::file(&manifest, &manifest.repositories[0], &one());
        assert_eq!(Share::parse(&text).unwrap(), one(), "{}", text.escape_debug());
        assert_eq!(text.lines().count(), 7, "two lines about it, and five of it");
    }
}

#[test]
fn a_share_page_tells_how_many_are_needed_and_no_other_share() {
    let manifest = manifest(SHOP);
    for (threshold, total, files) in [(1, 3, 1), (2, 3, 2), (3, 5, 3), (4, 5, 3)] {
        let share = Share::new(SetId([1; 8]), (threshold, total), 1, [threshold; 32]).unwrap();
        let page = share::page(&manifest, &manifest.repositories[0], &share, "1", Language::English);
        let is_alone = page.contains("each of them opens the backups alone");
        assert_eq!(is_alone, threshold == 1, "{page}");
        // The plan and the recovery.
        assert_eq!(page.matches("--share ~/share-").count(), files * 2, "{threshold} of {total}");
        assert_eq!(page.contains(" … --in-place"), threshold > 3, "{page}");
        assert!(page.contains(&format!("Share 1 of {total}: shop")), "{page}");
    }
}

#[test]
fn a_unit_has_one_meaning_for_each_line_whatever_the_paths_are() {
    let plain = |name: &str| Unit {
        service: name.to_owned(),
        program: format!("/bin/{name}").into(),
        manifest: format!("/m/{name}").into(),
        user: "retoma".to_owned(),
        writes: vec![format!("/w/{name}").into(), format!("/w/{name}").into()],
    };
    let harmless = unit(&plain("name"));
    for bad in
        ["a b", "50%n", "$HOME", "a\"b", "a\\b", "a;b", "a'b", "a\nExecStartPre=/bin/x", "a\tb", "a\rb"]
    {
        let text = unit(&plain(bad));
        let keys = |text: &str| {
            text.lines().map(|line| line.split('=').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(keys(&text), keys(&harmless), "{}", bad.escape_debug());
        assert!(!text.contains(['\t', '\r']), "{}", bad.escape_debug());
        let start = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert!(!start.replace("$$", "").contains('$'), "{start}");
        assert!(!text.replace("%%", "").contains('%'), "{text}");
    }
}
