"""Print numbers of each month from the tables of nights: python watch.py nights/*.csv."""

import sys
from pathlib import Path

import pandas as pd

files = [Path(file) for file in sys.argv[1:]]  # such as nights/2026-11-28.csv
tables = [pd.read_csv(file, dtype=str).assign(night=file.stem) for file in files]
table = pd.concat(tables)
table["score"] = table["score"].astype(float)
rows = []
for month in dict.fromkeys(file.name[:7] for file in files):
    nights = [file.stem for file in files if file.name[:7] == month]
    for system in [*table["system"].dropna().unique()] or ["none"]:
        is_own = table["system"].isin([system, None])  # None: a file that cannot be read
        images = table[is_own & table["night"].isin(nights)]
        used = images[images["status"] == "ok"]
        row = {"month": month, "nights": len(nights)}
        row["empty"] = len(nights) - images["night"].nunique()
        row |= {"system": system, "images": len(images)}
        row["unreadable"] = (images["status"] == "refused").mean()
        row["withheld"] = (images["status"] == "doubtful").mean()
        row["positive"] = (used["decision"] == "positive").mean()
        for part in (10, 50, 90):
            row[f"q{part}"] = used["score"].quantile(part / 100)
        rows.append(row)
print(pd.DataFrame(rows).round(3).to_string(index=False))
