# The front program with servers of Docker and a taskserv in them.

use bench.nu [image with-place inside docker-state]
use check.nu
use user.nu *

export def "test a cluster is brought up verified and removed from any shell" [] {
    with-place {|place|
        with-user {|user|
            {
                infra: $place.infra
                defaults: {image: (image)}
                servers: [{name: web-01} {name: web-02}]
                clusters: [{name: cache, type: redis-cluster, servers: [web-01], taskservs: [redis]}]
            } | to yaml | save --force $user.settings
            let order = [--infra $place.infra --settings ./settings.yaml --wait]

            let plan = $user | front ([cluster create redis-cluster --check] ++ $order)
            check same [$plan.exit_code ($place | docker-state).containers] [0 []]

            let created = $user | front ([cluster create redis-cluster] ++ $order)
            check succeeded $created
            check holds $created.stdout "create web-01" "redis"
            check same ($place | inside web-01 [redis-cli ping]) "PONG"
            check succeeded ($user | front ([cluster verify redis-cluster] ++ $order))

            $place | inside web-01 [redis-cli shutdown nosave]
            let broken = $user | front ([taskserv verify redis web-01] ++ $order)
            check same $broken.exit_code 1
            check holds $broken.stderr "redis on web-01" "Failed"
            check succeeded ($user | front ([taskserv create redis] ++ $order))
            check same ($place | inside web-01 [redis-cli ping]) "PONG"

            check succeeded ($user | front ([server create] ++ $order))
            check same ($user | front-value [server list --settings ./settings.yaml] | get status) [running running]
            check succeeded ($user | front ([cluster delete redis-cluster] ++ $order))
            check same ($user | front-value [server list --settings ./settings.yaml] | select name status) [[name status]; [web-01 absent] [web-02 running]]
        }
    }
}
