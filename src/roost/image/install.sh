#!/bin/sh
# What a node needs and nothing else, on a Debian base; run once, while the image is built.
# usage: install.sh trixie|forky|lts|feature
set -eu
release=$1
export DEBIAN_FRONTEND=noninteractive

# As Debian's own slim images do: no documentation and no translations, but the licences.
cat > /etc/dpkg/dpkg.cfg.d/roost <<'END'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/bash-completion/*
END
# No services start while their packages are installed, and no translations are fetched.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
printf 'Acquire::Languages "none";\n' > /etc/apt/apt.conf.d/roost
quietly() { "$@" > /tmp/output 2>&1 || { tail -n 20 /tmp/output >&2; exit 1; }; }
install() { quietly apt-get install -qq -y --no-install-recommends "$@"; }

case $release in
  trixie) apt-get update -qq ;;
  forky)  # Not released yet: mirrors that stand still serve it with a Release file past its date.
          apt-get update -qq -o Acquire::Check-Valid-Until=false ;;
  lts|feature)
    # HTCondor's own repository, laid out as its manual says ("Linux (from our repositories)").
    case $release in lts) series=25.0 ;; feature) series=25.x ;; esac
    . /etc/os-release
    apt-get update -qq
    install ca-certificates curl
    mkdir -p /etc/apt/keyrings
    from=https://htcss-downloads.chtc.wisc.edu/repo
    curl -fsSL "$from/keys/HTCondor-$series-Key" -o /etc/apt/keyrings/htcondor.asc
    curl -fsSL "$from/debian/htcondor-$series-$VERSION_CODENAME.list" \
         -o /etc/apt/sources.list.d/htcondor.list
    quietly apt-get purge -qq -y curl
    apt-get update -qq ;;
  *) echo "release '$release' is unknown: it is trixie, forky, lts or feature" >&2; exit 2 ;;
esac

# HTCondor's user has the same number in every release: it owns what is in the pools' volumes, and a
# master runs as it (CONDOR_USER in roost_node/vocab.py). The number is what trixie's package takes.
echo 'condor:x:102:' >> /etc/group
echo 'condor:!::' >> /etc/gshadow
echo 'condor:x:100:102::/var/lib/condor:/usr/sbin/nologin' >> /etc/passwd
echo 'condor:!:1::::::' >> /etc/shadow
# systemd-standalone-sysusers stands in for systemd, which openssh-server would bring.
install condor supervisor tini python3 python3-cryptography ca-certificates \
        openssh-server openssh-client systemd-standalone-sysusers

# 100 MB come with Debian's condor for three Perl scripts, a web page and the encryption of
# whole disks. Its list of dependencies is shortened, and apt takes along what nobody needs then.
sed -i '/^Package: condor$/,/^$/ { /^Depends:/ s/, \(perl:any\|libdate-manip-perl\|libjs-[a-z0-9]*\|condor-upgrade-checks\|cryptsetup\)\( ([^)]*)\)\?//g }' \
    /var/lib/dpkg/status
quietly apt-get purge -qq -y --auto-remove -o APT::AutoRemove::RecommendsImportant=false \
        -o APT::AutoRemove::SuggestsImportant=false perl libjs-jquery cryptsetup
apt-get check -qq
# Perl's core stays, Debian needs it; scripts that it cannot run any more would only mislead.
for program in /usr/bin/condor_* /usr/sbin/condor_*; do
  if head -n 1 "$program" | grep -aq '^#!.*perl' && ! perl -c "$program" > /dev/null 2>&1
  then rm "$program"; fi
done

# HTCondor is configured by roost-node when it starts, and by nothing before.
rm -rf /etc/condor/config.d/* /etc/condor/ganglia.d /etc/supervisor/conf.d
# A key that is in an image is no secret: each node makes its own.
rm -f /etc/ssh/ssh_host_*
# The accounts that jobs run as: SLOT1_<n>_USER, n ≤ 128. Nobody logs in as them.
echo 'slots:x:30000:' >> /etc/group
echo 'slots:!::' >> /etc/gshadow
awk 'BEGIN { for (n = 1; n <= 128; n++) {
  printf "slot1_%d:x:%d:30000::/nonexistent:/usr/sbin/nologin\n", n, 30000 + n >> "/etc/passwd"
  printf "slot1_%d:!:1::::::\n", n >> "/etc/shadow" } }'
install_dir() { mkdir -p "$3"; chown "$2" "$3"; chmod "$1" "$3"; }
# A new volume takes its owner from here: a master may run as condor. Other nodes make it root's.
install_dir 755 condor:condor /var/lib/roost
install_dir 755 condor:condor /var/spool/condor
install_dir 755 condor:condor /var/lib/condor/execute
# Jobs and users have no business in it: it holds the ads of other people's jobs.
install_dir 750 condor:root /var/log/condor
install_dir 775 condor:condor /run/condor
install_dir 775 condor:condor /run/lock/condor
install_dir 755 root:root /run/sshd

# What the base brought of documentation and translations, and what installing leaves behind.
find /usr/share/doc -type f ! -name copyright -delete
find /usr/share/doc -type l -delete
find /usr/share/doc -type d -empty -delete
find /usr/share/locale -mindepth 1 ! -name locale.alias -delete
rm -rf /usr/share/man/* /usr/share/info/* /usr/share/lintian /usr/share/bash-completion \
       /usr/lib/python3*/test /usr/lib/python3*/pydoc_data /usr/lib/python3/dist-packages/*/tests \
       /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* \
       /var/lib/dpkg/*-old /tmp/* /usr/sbin/policy-rc.d
find /var/log -type f -delete
# 8 MB of converters from other times' character sets: Unicode and Western European stay.
find /usr/lib/*/gconv -name '*.so' ! -name 'U*' ! -name 'ISO8859-1.so' ! -name 'ISO8859-15.so' \
     ! -name 'CP1252.so' -delete
# A hard link would become a second copy in the image's one layer.
ln -sf perl /usr/bin/perl5.*
