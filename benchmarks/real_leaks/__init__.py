"""Leaks that packages on the index shipped: each audited in a release that has it and in one that has not.

    make real-leaks                                 all of them, into reports/real_leaks.{json,md}
    python -m benchmarks.real_leaks doge roformer   some; the report keeps the others

`leaks.py` says which, `models/` builds them small. A release is installed into a folder that is thrown away, which goes
before the packages of this interpreter on the path; then `leakcheck run` audits it in a process of its own. Beside it
stands what brute force, which shares no code with flow, finds in float64.
"""
