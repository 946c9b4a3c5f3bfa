# The plugin, on which the module's commands rest. Nushell has to know it before it reads the module.

# Ends with an error unless the plugin is loaded.
export def must-be-loaded []: nothing -> nothing {
    if (which "orchestrator workflow server create" | is-empty) {
        error make --unspanned {msg: "the plugin is not loaded", code: "orchestrator::no_plugin", help: "load it before this module: `plugin use orchestrator`, or start Nushell with `--plugins PATH/nu_plugin_orchestrator`"}
    }
}
