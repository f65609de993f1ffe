# Complete `doit` and `llamafile-recipe` in bash and zsh: verbs, options, and models (MODEL, verb:MODEL, --model MODEL).
# Setup: docs/environment.md, "Completion". In other doit projects it completes what `doit list` shows.

_recipe_doit() {
    local line=${COMP_LINE:0:$COMP_POINT} cur before verb="" word="" list="" breaks="" cut=""
    local program=${COMP_WORDS[0]:-doit}
    cur=${line##*[[:space:]]}
    before=${line%"$cur"}
    COMPREPLY=()
    # ask for verbs once per directory, for models each time
    if [ "${_recipe_where-}" != "$program:$PWD:${DOIT_FILE-}" ]; then
        _recipe_where=$program:$PWD:${DOIT_FILE-} _recipe_verbs=$(echo $("$program" list --quiet 2>/dev/null))
    fi
    for word in $before; do
        [ "$word" = -- ] && break # a command, or arguments of the engine follow
        case " $_recipe_verbs " in *" ${word%%:*} "*) verb=${word%%:*} ;; esac
    done
    case $word in
        -f | -d | -n | --llamafile) return ;; # filenames, by default
        --model | --as | --variant | --engine | --gpu | --kind | --) ;;
        --*) _recipe_takes_value "$word" && return ;;
    esac
    case "$word $cur" in # the previous word and the current one
        --\ *) [ "$verb" = with ] && [ "${before##* -- }" = "" ] && list=$(compgen -c -- "$cur") ;;
        --engine\ * | --gpu\ * | --kind\ *) list=$(_recipe_values "$word") ;;
        --model\ * | --as\ *) list=$(_recipe_models "") ;;
        --variant\ *) list=$(_recipe_variants "$before") ;;
        *\ --variant=*) list=$(_recipe_variants "$before" --variant=) ;;
        *\ --model=*) list=$(_recipe_models --model=) ;;
        *\ -*) list=$("$program" help "$verb" 2>/dev/null | sed -n 's/^ *\(-., \)*\(--[a-z0-9-]*\).*/\2/p') ;;
        *\ deploy:*) list=$(_recipe_kinds) ;;
        *\ *:*) list=$(_recipe_models "${cur%%:*}:") ;;
        *) list="$_recipe_verbs help info list ${verb:+$(_recipe_models "")}" ;;
    esac
    # bash replaces only what follows the last word break; zsh has no word breaks
    case ${COMP_WORDBREAKS-} in *:*) breaks=: ;; esac
    case ${COMP_WORDBREAKS-} in *=*) breaks=$breaks= ;; esac
    [ -n "$breaks" ] && cut=${cur%"${cur##*[$breaks]}"}
    for word in $list; do
        case $word in "$cur"*) COMPREPLY+=("${word#"$cut"}") ;; esac
    done
}

# print each model with a prefix
_recipe_models() {
    "$program" list --all --quiet serve 2>/dev/null | sed -n "s/^serve:\([^ ]*\).*/$1\1/p"
}

# print each variant of the models on a line with a prefix, by their pages in the help
_recipe_variants() {
    local word
    for word in $1; do
        word=${word#"$verb:"} word=${word#--model=}
        case $word in -* | "$verb" | "$program") continue ;; esac
        "$program" help "$word" 2>/dev/null | sed -n 's/^ *variants *//p' | sed 's/;.*//; s/, */\n/g'
    done | sed "s/^/${2-}/"
}

# print what `deploy:` can be followed by, which the last lines of its help list
_recipe_kinds() {
    "$program" help deploy 2>/dev/null | tr '\n' ' ' | sed -n 's/.*KIND is one of //p' | tr -d , | sed 's/\([^ ][^ ]*\)/deploy:\1/g'
}

# whether an option has a value, by the help of the verb
_recipe_takes_value() {
    [ -n "$verb" ] && "$program" help "$verb" 2>/dev/null | grep -q -e "^ *\(-., \)*$1 [A-Z]"
}

# print the values of an option, which its line in the help lists: a, b or c
_recipe_values() {
    "$program" help "$verb" 2>/dev/null | sed -n "s/^ *$1 [A-Z]* *//p" | sed 's/.*: //; s/,//g; s/ or / /; s/\[.*//'
}

complete -o default -F _recipe_doit doit llamafile-recipe
