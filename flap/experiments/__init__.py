"""The paper's tables and Figure 3: each row is a change of params.yaml; a page shows the scores."""
