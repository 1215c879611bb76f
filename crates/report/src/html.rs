//! The evidence as one HTML file that asks for nothing from anywhere.

mod view;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};

use self::view::View;
use crate::evidence::Evidence;

impl Evidence {
    /// The report as one self-contained HTML page: style and plots inside, no script, no request.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment
            .add_template("report.html", include_str!("html/report.html"))
            .expect("the embedded template is valid");
        environment
            .get_template("report.html")
            .and_then(|template| template.render(Serde(View::of(self))))
            .expect("the embedded template renders every view")
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::{Evidence, Variant};

    /// Elements that HTML never closes.
    const VOID: [&str; 2] = ["meta", "link"];

    fn sample() -> Evidence {
        Evidence::from_json(include_str!("../examples/sample.json")).unwrap()
    }

    /// Checks that every tag closes in order, every attribute is quoted and every `&` is an entity.
    fn check_well_formed(html: &str) {
        let mut open = Vec::new();
        let mut rest = html
            .strip_prefix("<!doctype html>")
            .expect("starts with the doctype");
        while let Some(start) = rest.find('<') {
            check_text(&rest[..start]);
            let end = start + rest[start..].find('>').expect("every tag ends");
            let tag = &rest[start + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
            assert_eq!(
                tag.matches('=').count() == 0,
                !tag.contains('"'),
                "attributes of <{tag}>"
            );
            rest = &rest[end + 1..];
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closing tag");
            } else if !tag.ends_with('/') {
                let name = tag.split_whitespace().next().expect("a tag has a name");
                if !VOID.contains(&name) {
                    open.push(name);
                }
                if name == "style" {
                    rest = &rest[rest.find("</style>").expect("style ends")..];
                }
            }
        }
        assert_eq!(open, Vec::<&str>::new(), "tags left open");
    }

    fn check_text(text: &str) {
        for part in text.split('&').skip(1) {
            let entity = part.split(';').next().unwrap();
            let known = ["amp", "lt", "gt", "quot"].contains(&entity) || entity.starts_with('#');
            assert!(known && part.contains(';'), "&{part}");
        }
    }

    fn check_asks_for_nothing(html: &str) {
        let html = html.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for word in [
            "http:", "https:", "<script", "src=", "@import", "url(", " onload", " onclick",
        ] {
            assert!(!html.contains(word), "{word}");
        }
    }

    #[test]
    fn the_page_is_well_formed_and_asks_for_nothing() {
        let html = sample().to_html();
        check_well_formed(&html);
        check_asks_for_nothing(&html);
        assert_eq!(html.matches("<svg").count(), 5);
    }

    #[test]
    fn poor_evidence_renders() {
        let one = Variant {
            name: "fp32".into(),
            ratio: f64::NAN,
            ..Variant::default()
        };
        for variants in [vec![], vec![one]] {
            let html = Evidence {
                variants,
                ..Evidence::default()
            }
            .to_html();
            check_well_formed(&html);
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }

    #[test]
    fn evidence_without_labels_plots_agreement() {
        let mut evidence = sample();
        for variant in &mut evidence.variants {
            variant.accuracy = None;
        }
        let html = evidence.to_html();
        check_well_formed(&html);
        assert!(html.contains("Fidelity against bytes") && !html.contains("Wilson"));
    }

    #[test]
    fn names_cannot_become_markup() {
        let evil = "</style><script>alert(\"1\")</script>'&<!--";
        let mut evidence = sample();
        for text in [
            &mut evidence.model.name,
            &mut evidence.model.file,
            &mut evidence.target.name,
        ] {
            *text = evil.into();
        }
        evidence.warnings.push(evil.into());
        evidence.settings.push((evil.into(), evil.into()));
        for variant in &mut evidence.variants {
            variant.name = evil.into();
            variant.notes.push(evil.into());
            variant.execution.fallback.push(evil.into());
            variant.nodes[3].name = evil.into();
            variant.nodes[3].kernel = evil.into();
        }
        let html = evidence.to_html();
        check_well_formed(&html);
        assert!(!html.contains("<script") && html.contains("&lt;script&gt;"));
    }

    #[test]
    fn many_nodes_are_cut_to_the_worst_and_said() {
        let mut evidence = sample();
        let nodes = evidence.variants[2].nodes.clone();
        evidence.variants[2].nodes = (0..200)
            .flat_map(|i| {
                nodes[5..6].iter().cloned().map(move |mut node| {
                    node.name = format!("node.{i}");
                    node
                })
            })
            .collect();
        let html = evidence.to_html();
        check_well_formed(&html);
        assert!(html.contains("The 80 worst of"));
    }

    #[test]
    fn the_same_evidence_gives_the_same_page() {
        assert_eq!(sample().to_html(), sample().to_html());
    }
}
