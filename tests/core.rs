//! The core against the fake kernel: no root needed.

#[path = "core/scene.rs"]
mod scene;

#[path = "core/contents.rs"]
mod contents;
#[path = "core/failures.rs"]
mod failures;
#[path = "core/families.rs"]
mod families;
#[path = "core/files.rs"]
mod files;
#[path = "core/flood.rs"]
mod flood;
#[path = "core/migration.rs"]
mod migration;
#[path = "core/partial.rs"]
mod partial;
#[path = "core/plans.rs"]
mod plans;
#[path = "core/properties.rs"]
mod properties;
#[path = "core/protocols.rs"]
mod protocols;
#[path = "core/rendering.rs"]
mod rendering;
#[path = "core/resolving.rs"]
mod resolving;
#[path = "core/settings.rs"]
mod settings;
#[path = "core/sizes.rs"]
mod sizes;
