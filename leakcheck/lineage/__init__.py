"""Lineage: where the mask is born, who hands it to whom, where it acts; read off one watched forward."""
