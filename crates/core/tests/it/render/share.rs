use super::sheet::{SHOP, manifest};
use retoma_core::render::{Language, share};
use retoma_core::share::{SetId, Share};

fn one(index: u8) -> Share {
    Share::new(SetId([0xa5; 8]), (3, 5), index, [index; 32]).unwrap()
}

fn page(language: Language) -> String {
    let manifest = manifest(SHOP);
    share::page(&manifest, &manifest.repositories[0], &one(2), "1.2.3", language)
}

#[test]
fn a_share_in_english() {
    insta::assert_snapshot!(page(Language::English));
}

#[test]
fn a_share_in_portuguese() {
    insta::assert_snapshot!(page(Language::Portuguese));
}

/// The modules of the drawing, as a camera would see them.
fn drawn(page: &str) -> (usize, Vec<Vec<bool>>) {
    let (_, rest) = page.split_once("viewBox=\"0 0 ").unwrap();
    let side: usize = rest.split_once(' ').unwrap().0.parse().unwrap();
    let (_, path) = page.split_once("fill=\"#000\" d=\"").unwrap();
    let mut modules = vec![vec![false; side]; side];
    for run in path.split_once('"').unwrap().0.split('M').filter(|run| !run.is_empty()) {
        let (place, rest) = run.split_once('h').unwrap();
        let (x, y) = place.split_once(' ').unwrap();
        let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
        let length: usize = rest.split_once('v').unwrap().0.parse().unwrap();
        modules[y][x..x + length].fill(true);
    }
    (side, modules)
}

#[test]
fn the_code_on_the_page_is_read_by_another_program_and_holds_the_share() {
    let page = page(Language::English);
    let (side, modules) = drawn(&page);
    assert!(
        modules.iter().take(4).chain(modules.iter().rev().take(4)).flatten().all(|dark| !dark),
        "a quiet zone"
    );
    let grid = rqrr::SimpleGrid::from_func(side - 8, |x, y| modules[y + 4][x + 4]);
    let (_, text) = rqrr::Grid::new(grid).decode().unwrap();
    assert_eq!(Share::parse(&text).unwrap(), one(2));
}

#[test]
fn the_lines_on_the_page_hold_the_share() {
    for language in [Language::English, Language::Portuguese] {
        let page = page(language);
        let (_, rest) = page.split_once("<pre>").unwrap();
        assert_eq!(Share::parse(rest.split_once("</pre>").unwrap().0).unwrap(), one(2));
    }
}
