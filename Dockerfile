ARG NODE_IMAGE=docker.io/library/node:26-trixie-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# With optional dependencies: the compiler's own binaries are some.
RUN npm ci --ignore-scripts
COPY . .
# npm makes a program executable when it installs a package, not when it packs one.
RUN npm pack \
  && mkdir /heirloom \
  && tar -xzf heirloom-*.tgz -C /heirloom --strip-components=1 --no-same-owner \
  && chmod +x /heirloom/dist/src/heirloom.js
# From the lockfile, which installing the package would not obey. PostgreSQL and Node are optional dependencies.
RUN npm ci --ignore-scripts --omit=dev --omit=optional \
  && mv node_modules /heirloom/

FROM ${NODE_IMAGE}
LABEL org.opencontainers.image.title="heirloom" \
  org.opencontainers.image.description="OAuth 2.0 authorization server with opaque tokens on PostgreSQL" \
  org.opencontainers.image.licenses="MIT"
COPY --from=build /heirloom /opt/heirloom
RUN ln -s /opt/heirloom/dist/src/heirloom.js /usr/local/bin/heirloom
ENV HOST=0.0.0.0
EXPOSE 3000
# The user `node` by number: Kubernetes' runAsNonRoot believes no name.
USER 1000:1000
# Not /readyz: whoever restarts what is unhealthy would do so for as long as PostgreSQL is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/livez`, { signal: AbortSignal.timeout(4000) }).then(({ ok }) => process.exit(ok ? 0 : 1))"]
ENTRYPOINT ["heirloom"]
CMD ["serve"]
