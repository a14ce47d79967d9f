"""Stage `report`: results of all stages → one self-contained HTML page, and the model card."""
