# A mail server for tests: Debian's aiosmtpd, with users, STARTTLS or TLS, and addresses that it refuses.
# Usage: mail.py CERTIFICATE KEY MODE PASSWORD ADDRESS_FILE MAIL_FILE; MODE is none, starttls or tls.
import asyncio, json, os, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult

certificate, key, mode, password, address_file, mail_file = sys.argv[1:]


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        line = json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None or mode == "tls",
            "user": session.auth_data.decode() if session.authenticated else None,
            "message": envelope.content.decode("utf-8"),
        })
        with open(mail_file, "a") as file:
            file.write(line + "\n")
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    if data.login == b"retoma" and data.password == password.encode():
        return AuthResult(success=True, auth_data=data.login)
    return AuthResult(success=False, handled=False)


async def main():
    context = None
    if mode != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

    def factory():
        starttls = mode == "starttls"
        return SMTP(
            Handler(), hostname="localhost", tls_context=context if starttls else None, require_starttls=starttls,
            authenticator=authenticate if password else None, auth_required=bool(password), auth_require_tls=starttls,
        )

    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context if mode == "tls" else None)
    port = server.sockets[0].getsockname()[1]
    with open(address_file + ".new", "w") as file:
        file.write(str(port))
    os.rename(address_file + ".new", address_file)
    await server.serve_forever()


asyncio.run(main())
