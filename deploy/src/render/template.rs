//! Texts with holes: `{{name}}` is replaced by a value. A hole that is left, or a value that has no
//! hole, is a mistake of ours.

pub(super) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut used = vec![false; values.len()];
    // One pass, so that a value which looks like a hole stays what it is.
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").expect("a hole ends");
        let found = values.iter().position(|(known, _)| *known == name);
        let index = found.unwrap_or_else(|| panic!("the template's hole {name} has no value"));
        out.push_str(before);
        out.push_str(values[index].1);
        used[index] = true;
        rest = after;
    }
    out.push_str(rest);
    let unused = values.iter().zip(&used).find(|(_, used)| !**used);
    assert!(unused.is_none(), "the template has no hole for {unused:?}");
    out
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn a_value_is_taken_as_it_is() {
        assert_eq!(fill("a{{x}}b{{y}}{{x}}", &[("x", "{{y}}"), ("y", "")]), "a{{y}}b{{y}}");
        assert_eq!(fill("{x}", &[]), "{x}");
    }
}
