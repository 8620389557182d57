"""
A connection that the envelope can cut.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]


class Connection(HttpToolsProtocol):
    """
    uvicorn's protocol; each request finds its connection in the scope.
    """

    @property
    def is_receiving(self) -> bool:
        """
        Whether the request has not come in whole.
        """
        return self.cycle.more_body

    def abort(self) -> None:
        """
        Cut the connection at once.
        """
        self.transport.abort()

    def on_headers_complete(self) -> None:
        self.scope["extensions"] = {"connection": self}  # type: ignore[typeddict-item]
        super().on_headers_complete()
