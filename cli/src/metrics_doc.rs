//! The table of metrics in the docs is the one that the code has.

use tidegate_kit::telemetry::meter::rows;
use tidegate_kit::telemetry::process;

/// Set it to write what is made in place of comparing with it.
const WRITE: &str = "TIDEGATE_WRITE_DOCS";
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");

#[test]
fn the_table_in_the_docs_is_the_codes() {
    let head = "| name | type | labels | meaning |\n|---|---|---|---|\n";
    let tables = [
        ("gateway", [tidegate_gateway::meters::ALL, tidegate_kit::meters::ALL].concat()),
        ("worker", tidegate_fuse_cache::meters::ALL.to_vec()),
        ("process", process::ALL.to_vec()),
    ];
    let old = std::fs::read_to_string(PATH).unwrap();
    let mut text = old.clone();
    for (name, meters) in tables {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let (before, rest) = text.split_once(&begin).expect("the table's first mark");
        let (_, after) = rest.split_once(&end).expect("the table's last mark");
        text = format!("{before}{begin}{head}{}{end}{after}", rows(&meters));
    }
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(PATH, &text).unwrap();
    } else {
        assert!(text == old, "docs/metrics.md is stale: run this test with {WRITE}=1");
    }
}
