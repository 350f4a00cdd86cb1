"""All about one job: a pane with tabs."""
