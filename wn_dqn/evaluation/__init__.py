"""How agents are tested: protocols, games played in parallel, diagnostics."""
