# Prepared images: base images with taskservs installed in them.

use ../plugin.nu

# Removes the prepared images that no test environment uses.
@category provisioning
@example "how much space that gives back" 'provisioning test image prune | get size'
export def prune []: nothing -> record {
    plugin must-be-loaded
    orchestrator test image prune
}
