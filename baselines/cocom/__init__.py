"""COCOM and COCOM-light (Rau et al., WSDM 2025)."""
