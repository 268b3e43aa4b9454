"""The report: from a folder of runs to one page that is read offline, and to pictures and tables of every figure."""
