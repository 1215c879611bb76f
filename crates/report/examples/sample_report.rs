//! Writes a report of sample evidence: `cargo run -p edgesmith-report --example sample_report OUT.html`.

use std::error::Error;

use edgesmith_report::Evidence;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "report.html".into());
    let evidence = Evidence::from_json(include_str!("sample.json"))?;
    std::fs::write(out, evidence.to_html())?;
    Ok(())
}
