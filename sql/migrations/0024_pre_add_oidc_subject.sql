-- Who logs in through an OpenID provider is known by what never changes there, not by an address that may be given to somebody else.
ALTER TABLE console_user ADD COLUMN oidc_subject text UNIQUE;
COMMENT ON COLUMN console_user.oidc_subject IS
    'Issuer and subject of the provider''s account that logs in as this user: noted at the first login. Null: none did yet.';
