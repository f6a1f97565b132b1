"""Type a prompt."""

from __future__ import annotations

from pathlib import Path

import streamlit as st


def show(root: Path) -> None:
    """Show the page."""
    st.info("soon")
