"""The parts of a gateway process, put together by `gateway/app.py`. One reason for each module."""
