//! Names of interfaces that stand for several: `veth-*`.

use std::cmp::Reverse;

/// Whether a name is a pattern: `*` stands for any characters, `?` for one.
pub fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// Whether `name` is one of those that `pattern` stands for.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Where the last star stood, and how many characters it has taken so far.
    let mut star: Option<(usize, usize)> = None;
    let (mut at, mut seen) = (0, 0);
    while seen < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                (at, seen) = (star_at + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|c| *c == '*')
}

/// How much a pattern says: one that says more goes before. Characters, and then as few stars as can be.
pub fn weight(pattern: &str) -> impl Ord + use<> {
    let stars = pattern.matches('*').count();
    let any = pattern.matches('?').count();
    (pattern.chars().count() - stars - any, any, Reverse(stars))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches() {
        for (pattern, name, expected) in [
            ("veth-*", "veth-a", true),
            ("veth-*", "veth-", true),
            ("veth-*", "veth", false),
            ("*", "eth0", true),
            ("*0", "eth00", true),
            ("*0", "eth01", false),
            ("e*h?", "eth1", true),
            ("e*h?", "eth", false),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxbx", false),
            ("??", "ab", true),
            ("??", "a", false),
            ("v?*", "v", false),
            ("w", "w", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_goes_before() {
        assert!(weight("veth-a*") > weight("veth-*"));
        assert!(weight("veth-?") > weight("veth-*"));
        assert!(weight("v*") > weight("*"));
        assert!(weight("v*-a") == weight("ve*-"));
    }
}
