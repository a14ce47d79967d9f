"""The paper's tables and Figure 3: rows as changes of params.yaml, and the page of their scores."""
