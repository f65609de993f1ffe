"""The recipe: `graph` builds the tasks, `verbs` has a module per verb; then one package per capability."""
