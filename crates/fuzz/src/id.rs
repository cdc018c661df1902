//! Exactly the ids of the contract are accepted, alone and as a header's value.

use pixell_core::decision::deployment_id;
use pixell_core::deployment_id::DeploymentId;
use pixell_core::rejection::Rejection;

/// Whether `text` is an id by the words of the contract.
pub fn is_id(text: &str) -> bool {
    (1..=128).contains(&text.chars().count()) && text.chars().all(|c| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c))
}

/// Checks the property.
pub fn check(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).ok();
    let parsed = DeploymentId::parse(bytes);
    assert_eq!(parsed.is_ok(), text.is_some_and(is_id));
    if let Ok(id) = parsed {
        assert_eq!(Some(id.as_str()), text);
    }

    let lossy = String::from_utf8_lossy(bytes);
    let parts: Vec<&str> = lossy.split(',').map(|part| part.trim_matches(|c: char| c.is_ascii_whitespace())).collect();
    let expected = if parts == [""] {
        Err(Rejection::MissingDeploymentId)
    } else if parts.iter().all(|part| is_id(part) && *part == parts[0]) {
        Ok(parts[0])
    } else {
        Err(Rejection::InvalidDeploymentId)
    };
    assert_eq!(deployment_id(Some(bytes)).map(DeploymentId::as_str), expected);
}
